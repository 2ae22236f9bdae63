"""ops/__main__.py."""

import subprocess
import sys

import pytest

from ops.__main__ import available, main


def test_each_command_is_listed_with_its_first_line() -> None:
    commands = available()
    assert commands["up"].startswith("Start and supervise the whole system")
    assert all(commands.values())


def test_an_unknown_command_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upp"]) == 2
    said = capsys.readouterr().err
    assert "no command 'upp'" in said
    assert "\n  up " in said


def test_a_command_gets_the_rest_of_the_line() -> None:
    run = subprocess.run([sys.executable, "-m", "ops", "up", "--help"], capture_output=True, text=True, check=True)
    assert "--scale" in run.stdout
