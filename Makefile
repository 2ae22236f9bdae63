# `make run` starts everything. It needs a Python from 3.11 to 3.14, and nothing else that is not in this folder.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

.PHONY: run test check prove install install-dev

# `exec`, so that Ctrl-C and SIGTERM reach the supervisor itself; it ends with 0, and make has nothing to report.
run: install
	@exec $(VENV_PYTHON) -m ops up

test: install-dev
	@exec $(VENV_PYTHON) -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder

check: install-dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

# Every drill, one after the other, and a summary; half an hour. One of them: `.venv/bin/python -m ops.drills NAME`.
prove: install-dev
	@exec $(VENV_PYTHON) -m ops.drills

install:
	@$(call with_python,requirements.txt)

install-dev:
	@$(call with_python,requirements-dev.txt)

# Runs ops/local/install.py with the first Python that will do. A Python that somebody named, on the command line or in
# the environment, is the one .venv is to have, whatever made it before.
CHOSEN := $(if $(filter file,$(origin PYTHON)),,--chosen)
define with_python
for python in "$(PYTHON)" python3.13 python3.12 python3.14 python3.11; do \
	if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then \
		if [ "$$python" = "$(PYTHON)" ]; then chosen="$(CHOSEN)"; \
		elif [ -n "$(CHOSEN)" ]; then echo "$(PYTHON) is no Python from 3.11 to 3.14: $$python is used." >&2; fi; \
		exec "$$python" ops/local/install.py $(1) $$chosen; \
	fi; \
done; \
echo "CozyEngine needs Python 3.11, 3.12, 3.13 or 3.14, and found none. Install one, or name it:" >&2; \
echo "  make PYTHON=/path/to/python3.12" >&2; \
exit 1
endef
