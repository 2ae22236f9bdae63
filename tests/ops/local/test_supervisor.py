"""ops/local/supervisor.py, with real programs that stand in for the stages."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from ops.local import supervisor as module
from ops.local.child import Child
from ops.local.http_process import HttpProcess
from ops.local.run_file import read_run_file
from ops.local.supervisor import StartFailed, Supervisor
from tests.ops.local import stand_in
from tests.ops.local.watching import Told, alive, marks_in, until

SOON = 5.0
NEVER_READY = "import signal; print('waiting for Godot', flush=True); signal.pause()"


def stage(folder: Path, name: str, *manners: str) -> HttpProcess:
    argv = [sys.executable, str(Path(stand_in.__file__)), name, str(folder / "marks"), *manners]
    return HttpProcess(name, argv, env=os.environ, log=folder / "logs" / f"{name}.log", cwd=folder)


def program(folder: Path, code: str) -> HttpProcess:
    argv = [sys.executable, "-c", code]
    return HttpProcess("generation", argv, env=os.environ, log=folder / "generation.log", cwd=folder)


def pids(folder: Path, name: str) -> list[int]:
    return [mark["pid"] for mark in marks_in(folder / "marks") if (mark["name"], mark["what"]) == (name, "started")]


async def test_a_killed_process_is_started_again_with_its_address_and_listed(
    supervisor: Supervisor, told: Told, tmp_path: Path
) -> None:
    unit = stage(tmp_path, "generation")
    supervisor.keep(unit, ends_by=SOON)
    await supervisor.until_ready(SOON)
    url, first = unit.url, pids(tmp_path, "generation")[0]
    os.kill(first, signal.SIGKILL)
    await told.until("started", times=2)
    await supervisor.until_ready(SOON)
    assert unit.url == url
    assert told.lines[1] == f"generation was ended by SIGKILL, restarting in 0.2 s (log: {unit.log})"
    second = pids(tmp_path, "generation")[1]
    assert [(entry.name, entry.pid, entry.url) for entry in read_run_file(tmp_path / "run.json")] == [
        ("generation", second, url)
    ]


async def test_one_that_keeps_ending_waits_twice_as_long_each_time_up_to_a_limit(
    supervisor: Supervisor, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.06)
    begun = time.monotonic()
    supervisor.keep(program(tmp_path, "raise SystemExit(7)"), ends_by=SOON)
    await told.until("exited with code 7", times=4)
    assert [line.split(" (")[0] for line in told.lines if "restarting" in line][:4] == [
        "generation exited with code 7, restarting in 0.02 s",
        "generation exited with code 7, restarting in 0.04 s",
        "generation exited with code 7, restarting in 0.06 s",
        "generation exited with code 7, restarting in 0.06 s",
    ]
    assert time.monotonic() - begun > 0.02 + 0.04 + 0.06


async def test_one_that_was_steady_for_a_while_is_back_at_the_first_pause(
    supervisor: Supervisor, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(module, "STEADY_AFTER", 0.0)
    supervisor.keep(program(tmp_path, "raise SystemExit(7)"), ends_by=SOON)
    await told.until("restarting in 0.02 s", times=3)


async def test_all_end_in_their_order_and_none_is_started_again(
    supervisor: Supervisor, told: Told, tmp_path: Path
) -> None:
    for ends_by, name in ((3.0, "records"), (2.0, "generation"), (1.0, "gateway")):
        supervisor.keep(stage(tmp_path, "x-" + name), ends_by=ends_by)
    await supervisor.until_ready(SOON)
    await supervisor.stop()
    asked = [mark["name"] for mark in marks_in(tmp_path / "marks") if mark["what"] == "asked"]
    assert asked == ["x-gateway", "x-generation", "x-records"]
    assert not any(alive(mark["pid"]) for mark in marks_in(tmp_path / "marks"))
    assert not any("restarting" in line for line in told.lines)


async def test_one_that_does_not_end_is_killed_in_time_for_the_next(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.keep(stage(tmp_path, "stubborn", "stubborn"), ends_by=0.3)
    supervisor.keep(stage(tmp_path, "polite"), ends_by=SOON)
    await supervisor.until_ready(SOON)
    begun = time.monotonic()
    await supervisor.stop()
    assert time.monotonic() - begun < 1.5
    asked = {mark["name"]: mark["at"] for mark in marks_in(tmp_path / "marks") if mark["what"] == "asked"}
    assert asked["polite"] - asked["stubborn"] >= 0.3
    assert not any(alive(mark["pid"]) for mark in marks_in(tmp_path / "marks"))


async def test_a_kill_cuts_a_long_stop_short(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.keep(stage(tmp_path, "stubborn", "stubborn"), ends_by=60)
    await supervisor.until_ready(SOON)
    stopping = asyncio.create_task(supervisor.stop())
    await until(lambda: any(mark["what"] == "asked" for mark in marks_in(tmp_path / "marks")))
    supervisor.kill()
    await asyncio.wait_for(stopping, 2)
    assert not alive(pids(tmp_path, "stubborn")[0])


async def test_a_stop_in_the_middle_of_a_pause_starts_nothing(
    supervisor: Supervisor, told: Told, tmp_path: Path
) -> None:
    supervisor.keep(program(tmp_path, "raise SystemExit(7)"), ends_by=SOON)
    await told.until("restarting in 0.2 s")
    await supervisor.stop()
    assert [line for line in told.lines if "started" in line] == told.lines[:1]


async def test_what_is_not_ready_in_time_is_named_with_the_end_of_its_log(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.keep(stage(tmp_path, "records"), ends_by=SOON)
    supervisor.keep(program(tmp_path, NEVER_READY), ends_by=SOON)
    with pytest.raises(StartFailed) as caught:
        await supervisor.until_ready(1.5)
    message = str(caught.value)
    assert message.startswith("not ready after 1.5 s: generation\n")
    assert message.endswith("    waiting for Godot")


async def test_one_that_ends_three_times_instead_of_starting_stops_the_start(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.keep(program(tmp_path, "raise SystemExit('engines.yaml: no such provider')"), ends_by=SOON)
    with pytest.raises(StartFailed, match="generation ended 3 times") as caught:
        await supervisor.until_ready(60)
    assert str(caught.value).endswith("    engines.yaml: no such provider")


class Unlaunchable(HttpProcess):
    """One whose way cannot be cleared."""

    async def launch(self) -> Child:
        raise RuntimeError("the disk is full")


async def test_one_that_cannot_be_launched_stops_the_start(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.keep(Unlaunchable("nats", [], env={}, log=tmp_path / "x.log", cwd=tmp_path), ends_by=SOON)
    with pytest.raises(StartFailed, match="the disk is full"):
        await supervisor.until_ready(60)


async def test_one_that_cannot_be_launched_later_is_tried_again_and_told(
    supervisor: Supervisor, told: Told, tmp_path: Path
) -> None:
    supervisor.started()
    supervisor.keep(Unlaunchable("nats", [], env={}, log=tmp_path / "x.log", cwd=tmp_path), ends_by=SOON)
    await told.until("nats could not be started: the disk is full, restarting", times=2)
