"""A plan of faults is the same for the same seed, and is done to what runs."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from ops.drills.faults import FREEZE, KILL, POSTGRES, Done, Fault, Injector, plan
from ops.drills.stack import Stack
from ops.local.run_file import Entry, RunFile

COUNTS = {KILL: 20, POSTGRES: 3, FREEZE: 5}
SLEEPER = (sys.executable, "-c", "print(flush=True); import time; time.sleep(60)")


def planned(seed: int) -> list[Fault]:
    return plan(COUNTS, 60, random.Random(seed))


def test_the_same_seed_is_the_same_plan() -> None:
    assert planned(1) == planned(1) != planned(2)


def test_every_fault_is_planned_within_the_time_and_in_order() -> None:
    faults = planned(1)
    assert Counter(fault.kind for fault in faults) == COUNTS
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert 0 < faults[0].at < faults[-1].at < 60


def test_only_what_is_frozen_lasts() -> None:
    assert {fault.kind for fault in planned(1) if fault.seconds} == {FREEZE}


def test_a_plan_without_faults_is_empty() -> None:
    assert plan({KILL: 0}, 60, random.Random(1)) == []


@pytest.fixture
async def sleeper() -> AsyncIterator[asyncio.subprocess.Process]:
    """A process to be killed or frozen."""
    process = await asyncio.create_subprocess_exec(*SLEEPER, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    await process.stdout.readline()
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.fixture
def injector(stack: Stack, sleeper: asyncio.subprocess.Process, tmp_path: Path) -> Injector:
    """An injector on a stack of which only a worker runs; another was listed, and is gone."""
    listed = RunFile(stack.data / "run.json")
    listed.record(Entry(name="generation", pid=999_999_999, url="", started_at=1.0))
    started_at = psutil.Process(sleeper.pid).create_time()
    listed.record(Entry(name="generation.2", pid=sleeper.pid, url="", started_at=started_at))
    return Injector(stack, tmp_path / "faults.jsonl")


async def test_what_runs_is_killed_where_another_is_gone(
    injector: Injector, sleeper: asyncio.subprocess.Process
) -> None:
    await injector.run([Fault(at=0, kind=KILL, pick=0.0)])
    assert await sleeper.wait() == -signal.SIGKILL
    assert [(done.kind, done.target, done.pid) for done in injector.done] == [(KILL, "generation.2", sleeper.pid)]


async def test_what_is_frozen_goes_on_after_its_time(injector: Injector, sleeper: asyncio.subprocess.Process) -> None:
    injector.strike(Fault(at=0, kind=FREEZE, pick=0.0, seconds=0.3))
    process = psutil.Process(sleeper.pid)
    await _until_it_is(process, psutil.STATUS_STOPPED)
    await injector.run([])
    await _until_it_is(process, psutil.STATUS_SLEEPING)
    assert [done.kind for done in injector.done] == [FREEZE, "thaw"]
    assert injector.counts() == {FREEZE: 1}


async def test_the_log_has_a_line_for_each_fault(injector: Injector, tmp_path: Path) -> None:
    injector.strike(Fault(at=0, kind=KILL, pick=0.0))
    [line] = (tmp_path / "faults.jsonl").read_bytes().splitlines()
    assert msgspec.json.decode(line, type=Done) == injector.done[0]


async def _until_it_is(process: psutil.Process, status: str) -> None:
    async with asyncio.timeout(5):
        while process.status() != status:  # noqa: ASYNC110 - another process's state rings no bell
            await asyncio.sleep(0.01)
