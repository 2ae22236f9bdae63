"""Makes `.venv` and installs what a requirements file locks, if that was not done already: `install.py FILE`.

With `--chosen`, `.venv` has to be of the very Python that runs this, and is made anew where it is of another.

Run by any Python from 3.11 on, before there is anything installed: so it uses the standard library only.
"""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
VENV = PROJECT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"

NO_ENSUREPIP = """\
This Python cannot make virtual environments, because its `ensurepip` is missing. On Debian and Ubuntu:

  apt install python3-venv       (or, for this very version, python{0}.{1}-venv)

Or use another Python: make PYTHON=/path/to/python3.12"""


IDENTITY = "import sys; print(sys.version_info[:3], sys.base_prefix)"


def main(requirements: str, chosen: str = "") -> int:
    """0 if all is installed; what went wrong is on the terminal otherwise."""
    if chosen == "--chosen" and _works() and not _is_ours():
        print("The .venv there is belongs to another Python than the one that was named.", flush=True)
        if not _make_venv():
            return 1
    locked = PROJECT / requirements
    # One for each file, because `make test` installs more than `make run` does.
    stamp = VENV / f".installed-{locked.stem}"
    wanted = hashlib.sha256(locked.read_bytes()).hexdigest()
    if _works() and stamp.exists() and stamp.read_text() == wanted:
        return 0
    if not _works() and not _make_venv():
        return 1
    print(f"Installing {requirements} into .venv ...", flush=True)
    # Wheels only: what building a source package would fetch is not in the lock.
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
    code = subprocess.run(  # noqa: S603
        [VENV_PYTHON, "-m", "pip", "install", *options, "--requirement", locked], check=False, cwd=PROJECT
    ).returncode
    if code == 0:
        stamp.write_text(wanted)
    return code


def _works() -> bool:
    """Whether there is a virtual environment whose Python still runs and has pip."""
    try:
        return subprocess.run([VENV_PYTHON, "-c", "import pip"], check=False, capture_output=True).returncode == 0  # noqa: S603
    except OSError:
        return False


def _is_ours() -> bool:
    """Whether the virtual environment is of the Python that runs this."""
    found = subprocess.run([VENV_PYTHON, "-c", IDENTITY], check=False, capture_output=True, text=True)  # noqa: S603
    return found.stdout.strip() == f"{tuple(sys.version_info[:3])} {sys.base_prefix}"


def _make_venv() -> bool:
    if importlib.util.find_spec("ensurepip") is None:
        print(NO_ENSUREPIP.format(*sys.version_info), file=sys.stderr)
        return False
    print(f"Making .venv with Python {sys.version.partition(' ')[0]} ...", flush=True)
    return subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=False).returncode == 0  # noqa: S603


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
