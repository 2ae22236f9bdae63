"""Mutations: each guarantee is broken once, and the drills must notice.

    python -m ops.drills mutations [--only NAME] [--seed S]

For each mutation the same act is played twice: by the system as it is, which has to pass, and by one whose workers are
mutants (`ops/drills/mutant.py`), which has to fail. Exit code 0 only if every mutant was caught.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.drills.scene import Happening, Scene, play
from ops.drills.stack import LEASE, Stack, run
from ops.local.launch_settings import PROJECT
from ops.local.procfile import parse_procfile

KILL, FREEZE, NATS, POSTGRES = "generation killed", "generation frozen", "nats killed", "postgres crashed"
FROZEN = LEASE + 1.5
"""Seconds: the next owner speaks already when a frozen one wakes up."""
POOLS = "generation=3,context_fetch=2,tool_execution=1"
CAUGHT = "caught"
SOON, LATE = 10.0, 90.0
"""Seconds for a system to settle: a mutant's losses stay lost, and memory is told of an ended turn within a minute."""
NEVER = {"COZY_STORAGE__SWEEP_INTERVAL": "86400"}
VARYING = {"SCRIPTED_VARY": "1"}
"""A real model does not say the same twice; with one that does, a wrong owner's words would be the right ones."""


@dataclass(kw_only=True)
class Mutation:
    """What is broken, and the act that finds it out. `always`: what both systems have. `faults`: (after so many
    seconds, what)."""

    name: str
    breaks: str
    scene: Scene
    faults: tuple[tuple[float, str], ...]
    always: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


KILLS = ((3.0, KILL), (2.0, POSTGRES), (3.0, KILL), (2.0, KILL), (2.0, POSTGRES), (3.0, KILL))
JOBS = Scene(title="", chats=80, seconds=14, tokens=60, limit=40, stall=30)
ZOMBIES = Scene(title="", chats=40, seconds=4, tokens=100, limit=40, stall=30)
HOLES = Scene(title="", chats=60, seconds=4, tokens=300, limit=60, stall=LEASE + 3)
MUTATIONS = (
    Mutation(name="ack first", breaks="ack_first", scene=JOBS, faults=KILLS, settings=NEVER),
    Mutation(name="exception deletes", breaks="exception_deletes", scene=JOBS, faults=KILLS, settings=NEVER),
    Mutation(
        name="no epoch check",
        breaks="no_epoch_check",
        scene=ZOMBIES,
        faults=((3.0, FREEZE), (FROZEN, FREEZE)),
        settings=VARYING,
    ),
    Mutation(
        name="no fence",
        breaks="no_fence",
        always="slow_takeover",
        scene=ZOMBIES,
        faults=((3.0, FREEZE), (FROZEN, FREEZE)),
        settings=VARYING,
    ),
    Mutation(
        name="no snapshot", breaks="no_snapshot", scene=HOLES, faults=((3.0, NATS), (3.0, NATS)), settings=VARYING
    ),
    Mutation(
        name="message id reused",
        breaks="message_id_reused",
        always="ack_first",
        scene=JOBS,
        faults=((3.0, KILL), (3.0, KILL), (3.0, KILL)),
        settings={"COZY_STORAGE__SWEEP_AFTER": "4"},
    ),
)


def main(argv: list[str]) -> int:
    """Try every mutation, or one."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills mutations", description=__doc__)
    parser.add_argument("--only", choices=[one.name for one in MUTATIONS])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    chosen = [one for one in MUTATIONS if options.only in (None, one.name)]
    return run(_mutations(chosen, options.seed))


async def _mutations(chosen: list[Mutation], seed: int) -> int:
    verdicts = {}
    for one in chosen:
        healthy = await _passes(one, one.always, seed)
        survived = await _passes(one, ",".join(filter(None, (one.always, one.breaks))), seed)
        verdicts[one.name] = _verdict(healthy, survived)
    print("mutations")
    print("\n".join(f"  {name:<20}{verdict}" for name, verdict in verdicts.items()))
    return 0 if set(verdicts.values()) == {CAUGHT} else 1


def _verdict(healthy: bool, survived: bool) -> str:
    if not healthy:
        return "NOT SHOWN: the healthy system failed the same act"
    return "SURVIVED: nobody noticed" if survived else CAUGHT


async def _passes(one: Mutation, broken: str, seed: int) -> bool:
    """Whether a system with these mutations keeps every promise in this mutation's act."""
    with tempfile.TemporaryDirectory(prefix="cozy-mutants-") as folder:
        procfile = Path(folder) / "Procfile"
        procfile.write_text(_procfile(broken))
        async with Stack(one.settings, pools=POOLS, arguments=["--procfile", str(procfile)]) as stack:
            happen = _Faults(one.faults)
            title = f"{one.name}: {broken or 'as it is'}"
            scene = Scene(**{**vars(one.scene), "title": title, "seed": seed})
            mutated = broken != one.always
            kept = await play(scene, stack, happen, settling=SOON if mutated else LATE)
            # What a mutant leaves behind interests nobody.
            stack.keep = stack.keep and not mutated
            return kept


class _Faults:
    """Carries an act's faults out."""

    def __init__(self, faults: tuple[tuple[float, str], ...]) -> None:
        self._faults = faults

    async def __call__(self, happening: Happening) -> None:
        stack, thawing = happening.stack, []
        for number, (pause, what) in enumerate(self._faults):
            await asyncio.sleep(pause)
            names = stack.names("generation")
            target = {NATS: "nats", POSTGRES: "postgres"}.get(what, names[number % len(names)])
            happening.note(what, target)
            entry = stack.signal(target, signal.SIGSTOP if what == FREEZE else signal.SIGKILL)
            if what == FREEZE and entry is not None:
                thawing.append(asyncio.create_task(_thaw(entry.pid)))
        await asyncio.gather(*thawing)


async def _thaw(pid: int) -> None:
    await asyncio.sleep(FROZEN)
    os.kill(pid, signal.SIGCONT)


def _procfile(broken: str) -> str:
    """Ours, with every stage a mutant."""
    lines = []
    for name, command in parse_procfile((PROJECT / "Procfile").read_text(encoding="utf-8")).items():
        module = command[-1]
        if broken and module.startswith("workers."):
            command = [sys.executable, "-m", "ops.drills.mutant", broken, module]
        lines.append(f"{name}: {' '.join(command)}")
    return "\n".join(lines) + "\n"
