"""ops/local/run_file.py."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from ops.local.run_file import Entry, RunFile, end_leftovers, read_run_file


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield psutil.Process(process.pid)
        process.kill()


def test_it_lists_the_last_start_under_each_name_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    file = RunFile(path)
    file.record(Entry(name="nats", pid=1, url="nats://127.0.0.1:1"))
    file.record(Entry(name="gateway", pid=2, url="http://127.0.0.1:2"))
    file.record(Entry(name="nats", pid=3, url="nats://127.0.0.1:1"))
    listed = [(entry["name"], entry["pid"], entry["url"]) for entry in json.loads(path.read_text())]
    assert listed == [("nats", 3, "nats://127.0.0.1:1"), ("gateway", 2, "http://127.0.0.1:2")]
    assert path.stat().st_mode & 0o777 == 0o600
    file.remove()
    assert read_run_file(path) == []


def test_a_leftover_is_ended_and_named(tmp_path: Path, sleeper: psutil.Process) -> None:
    RunFile(tmp_path / "run.json").record(
        Entry(name="generation", pid=sleeper.pid, url="", started_at=sleeper.create_time())
    )
    assert end_leftovers(tmp_path / "run.json") == ["generation"]
    assert sleeper.status() == psutil.STATUS_ZOMBIE


def test_a_stranger_with_the_same_pid_is_left_alone(tmp_path: Path, sleeper: psutil.Process) -> None:
    RunFile(tmp_path / "run.json").record(
        Entry(name="generation", pid=sleeper.pid, url="", started_at=sleeper.create_time() - 60)
    )
    assert end_leftovers(tmp_path / "run.json") == []
    assert sleeper.status() != psutil.STATUS_ZOMBIE


def test_a_file_that_is_not_ours_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[{]")
    with pytest.raises(msgspec.DecodeError):
        end_leftovers(tmp_path / "run.json")
