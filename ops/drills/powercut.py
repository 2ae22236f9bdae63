"""A power cut: NATS and PostgreSQL find on their disk what was synced, and nothing else. Needs root.

    python -m ops.drills powercut [--chats N] [--seed S] [--cuts K]

Everything that the system stores lies on a file system of its own. In the middle of the chatting every process is
stopped at one moment, the file system is shut down without writing another byte (EXT4_IOC_SHUTDOWN; what was not
synced is lost), everything is killed, the disk is mounted again and the system is started on it. The clients live on.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from ops.drills.__main__ import NOT_RUN
from ops.drills.audit import Violation, World
from ops.drills.chaos import running_ledger
from ops.drills.machine import Disk, NotAllowed, mounted
from ops.drills.scene import LATE, Happening, Scene, play
from ops.drills.stack import LEASE, Stack, run
from ops.local.files import PASSABLE_FOLDER

POOLS = "generation=3,context_fetch=2,tool_execution=2"
FIRST = 6.0
BETWEEN = 14.0
SWEPT = 14.0
"""Seconds after the start by which every turn that stood still goes on."""
PATIENCE = 240.0
"""Seconds a client waits for its reply. How fast a machine starts the system is not what is promised."""
WITNESS = "not-synced"
"""A file written and not synced right before each cut: its words must be gone, or the drill has proven nothing."""


def main(argv: list[str]) -> int:
    """Run it and print its table."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills powercut", description=__doc__)
    parser.add_argument("--chats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cuts", type=int, default=2)
    options = parser.parse_args(argv)
    return run(_drill(options.chats, options.seed, options.cuts))


async def _drill(chats: int, seed: int, cuts: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="cozy-powercut-"))
    folder.chmod(PASSABLE_FOLDER)  # noqa: ASYNC240 - before anything runs
    try:
        with mounted(folder) as disk:
            return await _on_disk(disk, chats, seed, cuts)
    except NotAllowed as error:
        print(f"not run: {error}")
        return NOT_RUN
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _on_disk(disk: Disk, chats: int, seed: int, cuts: int) -> int:
    async with running_ledger() as ledger:
        # One gateway, whose address stays.
        stack = Stack({"COZY_DRILL_LEDGER_URL": ledger}, pools=POOLS)
        logs, stack.data = stack.data / "logs", disk.place / "data"
        # What is logged shall outlive the power cut, to be read afterwards.
        logs.mkdir(parents=True)
        stack.data.mkdir(mode=PASSABLE_FOLDER)
        (stack.data / "logs").symlink_to(logs)
        async with stack:
            return 0 if await _act(stack, disk, ledger, chats, seed, cuts) else 1


async def _act(stack: Stack, disk: Disk, ledger: str, chats: int, seed: int, cuts: int) -> bool:
    survived: list[Violation] = []

    def check(world: World, happening: Happening) -> list[Violation]:
        return survived

    async def happen(happening: Happening) -> None:
        await asyncio.sleep(FIRST)
        for _ in range(cuts):
            began = time.monotonic()
            await cut(stack, disk)
            happening.note("power cut", f"and the disk mounted again, after {time.monotonic() - began:.1f} s")
            witness = disk.place / WITNESS
            if witness.exists() and witness.read_text():
                survived.append(Violation(LATE, "what was never synced is still there: this was no power cut"))
            await stack.start()
            away = time.monotonic() - began
            happening.note("system started", f"{away:.1f} s after the cut")
            happening.stall = max(happening.stall, away + SWEPT + LEASE)
            await asyncio.sleep(BETWEEN)

    scene = Scene(
        title="Power cut",
        chats=chats,
        seed=seed,
        seconds=FIRST + cuts * BETWEEN,
        limit=PATIENCE,
        stall=SWEPT + LEASE,
    )
    return await play(scene, stack, happen, ledger=ledger, check=check)


async def cut(stack: Stack, disk: Disk) -> None:
    """Everything ends at one moment, and the disk has what had been synced by then."""

    def power_fails() -> None:
        (disk.place / WITNESS).write_text("written, not synced")
        disk.cut_power()

    # Frozen before the disk is: nobody may say "stored" of what the disk did not take any more.
    await stack.drop_dead(power_fails)
    await asyncio.to_thread(disk.mount_again)
