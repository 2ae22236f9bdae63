"""ops/local/install.py, run as `make` runs it, with a program that writes down its arguments in place of a Python."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local import install

PYTHON_THAT_NOTES = """#!/bin/sh
echo "$@" >> {calls}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "ops" / "local").mkdir(parents=True)
    shutil.copy(install.__file__, tmp_path / "ops" / "local")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(PYTHON_THAT_NOTES.format(calls=tmp_path / "calls"))
    python.chmod(0o755)
    (tmp_path / "requirements.txt").write_text("one==1\n")
    return tmp_path


def run(project: Path) -> tuple[int, list[str]]:
    """The exit code, and the calls of pip."""
    (project / "calls").unlink(missing_ok=True)
    command = [sys.executable, "-I", "-S", str(project / "ops" / "local" / "install.py"), "requirements.txt"]
    code = subprocess.run(command, check=False, capture_output=True).returncode
    return code, [call for call in (project / "calls").read_text().splitlines() if "pip install" in call]


def test_locked_wheels_are_installed_once_and_again_when_the_lock_changes(project: Path) -> None:
    code, calls = run(project)
    assert (code, len(calls)) == (0, 1)
    assert "--require-hashes" in calls[0]
    assert "--only-binary=:all:" in calls[0]
    assert run(project) == (0, [])
    (project / "requirements.txt").write_text("one==2\n")
    assert len(run(project)[1]) == 1


def test_an_installation_that_failed_is_tried_again(project: Path) -> None:
    stamp = project / ".venv" / ".installed-requirements"
    run(project)
    assert stamp.read_text() == hashlib.sha256(b"one==1\n").hexdigest()
    stamp.unlink()
    python = project / ".venv" / "bin" / "python"
    python.write_text(python.read_text() + 'test "$2" = pip && exit 5; exit 0\n')
    assert run(project)[0] == 5
    assert not stamp.exists()


def test_a_missing_ensurepip_is_named_with_the_package_that_brings_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "PROJECT", project)
    monkeypatch.setattr(install, "VENV_PYTHON", project / "no-such-python")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert install.main("requirements.txt") == 1
    words = capsys.readouterr().err
    assert "apt install python3-venv" in words
    assert f"python{sys.version_info[0]}.{sys.version_info[1]}-venv" in words


def another_python(project: Path, said: str) -> None:
    """Let the virtual environment be of the Python that says so of itself."""
    python = project / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in *base_prefix*) echo "{said}";; esac\n')


def test_a_python_that_was_named_takes_the_place_of_another(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Path] = []

    def make() -> bool:
        made.append(project)
        return True

    monkeypatch.setattr(install, "PROJECT", project)
    monkeypatch.setattr(install, "VENV", project / ".venv")
    monkeypatch.setattr(install, "VENV_PYTHON", project / ".venv" / "bin" / "python")
    monkeypatch.setattr(install, "_make_venv", make)
    another_python(project, "(3, 11, 0) /elsewhere")
    assert install.main("requirements.txt") == 0
    assert made == [], "nobody had named one"
    assert install.main("requirements.txt", "--chosen") == 0
    assert made == [project]
    assert "another Python" in capsys.readouterr().out
    another_python(project, f"{tuple(sys.version_info[:3])} {sys.base_prefix}")
    assert install.main("requirements.txt", "--chosen") == 0
    assert made == [project]
