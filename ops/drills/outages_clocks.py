"""Clocks that are wrong and jump: our processes' own, by ten minutes, while the servers' go right."""

from __future__ import annotations

import asyncio
import glob
import sys
import tempfile
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp

from ops.drills.audit import Violation
from ops.drills.chaos import running_ledger
from ops.drills.machine import NotAllowed
from ops.drills.scene import Happening, Scene, play
from ops.drills.stack import Stack
from ops.local.launch_settings import PROJECT
from ops.local.procfile import RELEASE, parse_procfile

LIBRARY = "/usr/lib/*/faketime/libfaketime.so.1"
OF_THE_EDGE, OF_THE_FRONT, OF_THE_BACK = "edge", "front", "back"
CLOCKS = {"gateway": OF_THE_EDGE, "context_fetch": OF_THE_FRONT, "records": OF_THE_FRONT}
"""Whose clock a process goes by; the others go by that of the back."""
JUMPS = ((OF_THE_EDGE, 600), (OF_THE_BACK, -600), (OF_THE_EDGE, -600), (OF_THE_FRONT, 600), (OF_THE_BACK, 600))
BETWEEN = 5.0
ABOUT = 5.0
NOT_SET = "clock not set"


async def clock(chats: int, seed: int) -> bool:
    """The clocks of gateways, front and back stages jump by ten minutes, ahead and back, one after the other.

    libfaketime stands between our processes and the system's clock; what counts seconds (CLOCK_MONOTONIC) is left
    alone, and so are NATS, PostgreSQL and the clients.
    """
    found = glob.glob(LIBRARY)
    if not found:
        raise NotAllowed("needs libfaketime (apt install libfaketime)")
    with tempfile.TemporaryDirectory(prefix="cozy-clocks-") as name:
        folder = Path(name)
        for one in (OF_THE_EDGE, OF_THE_FRONT, OF_THE_BACK):
            _set(folder, one, 0)
        procfile = folder / "Procfile"
        procfile.write_text(_procfile(folder, found[0]))
        return await _jumping(folder, procfile, chats, seed)


async def _jumping(folder: Path, procfile: Path, chats: int, seed: int) -> bool:
    wrong: list[Violation] = []
    async with (
        running_ledger() as ledger,
        Stack({"COZY_DRILL_LEDGER_URL": ledger}, arguments=["--procfile", str(procfile)]) as stack,
    ):

        async def happen(happening: Happening) -> None:
            for one, seconds in JUMPS:
                await asyncio.sleep(BETWEEN)
                _set(folder, one, seconds)
                happening.note("clock set", f"of the {one} to {seconds:+d} s")
            await asyncio.sleep(BETWEEN)
            wrong.extend(await _disbelieved(stack, [seconds for one, seconds in JUMPS if one == OF_THE_EDGE][-1]))

        scene = Scene(title="Clocks jump", chats=chats, seed=seed, seconds=BETWEEN * (len(JUMPS) + 1))
        return await play(scene, stack, happen, ledger=ledger, check=lambda *_: wrong)


async def _disbelieved(stack: Stack, seconds: int) -> list[Violation]:
    """Whether the gateway does not go by the clock that it was given: then nothing has been tried."""
    async with aiohttp.ClientSession() as http, http.get(f"{stack.gateways()[0]}/livez") as answer:
        shown = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
    if abs(shown - seconds) < ABOUT:
        return []
    return [Violation(NOT_SET, f"the gateway is {shown:+.0f} s off, not {seconds:+d} s")]


def _set(folder: Path, one: str, seconds: int) -> None:
    fresh = folder / f"{one}.new"
    fresh.write_text(f"{seconds:+d}\n")
    fresh.replace(folder / one)


def _procfile(folder: Path, library: str) -> str:
    """Ours, with every process but the release under a clock of the drill's."""
    lines = []
    for name, command in parse_procfile((PROJECT / "Procfile").read_text(encoding="utf-8")).items():
        words = [sys.executable, *command[1:]]
        if name != RELEASE:
            words = ["env", *_variables(folder / CLOCKS.get(name, OF_THE_BACK), library), *words]
        lines.append(f"{name}: {' '.join(words)}")
    return "\n".join(lines) + "\n"


def _variables(clock_file: Path, library: str) -> list[str]:
    return [
        f"LD_PRELOAD={library}",
        f"FAKETIME_TIMESTAMP_FILE={clock_file}",
        "FAKETIME_CACHE_DURATION=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "NO_FAKE_STAT=1",
    ]
