"""Faults on a schedule: who is killed or frozen when, from a seed, done to a running stack and written down."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ops.drills.stack import LEASE, Stack

WORKERS = ("generation", "context_fetch", "tool_execution", "memory_writeback", "records")
WEIGHTS = {"generation": 3, "tool_execution": 2}
"""Where most of a turn's time is spent, most faults strike; others weigh 1."""
FREEZABLE = ("generation", "context_fetch", "tool_execution")
FROZEN = (1.4, 2.2)
"""For how many leases a process is frozen: long enough to be taken for dead."""
KILL, FREEZE, GATEWAY, NATS, POSTGRES = "kill", "freeze", "gateway", "nats", "postgres"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault that is planned. `at` in seconds after the beginning; `pick` in [0, 1) chooses among the processes."""

    at: float
    kind: str
    pick: float
    seconds: float = 0.0


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the fault log. `at` in seconds after the beginning, `clock` in Unix seconds."""

    at: float
    clock: float
    kind: str
    target: str
    pid: int
    seconds: float = 0.0


def plan(counts: Mapping[str, int], seconds: float, chance: random.Random) -> list[Fault]:
    """Faults of every kind, mixed and spread over `seconds`: the same for the same seed."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    chance.shuffle(kinds)
    step = seconds / max(1, len(kinds))
    return [
        Fault(
            at=(place + chance.uniform(0.1, 0.9)) * step,
            kind=kind,
            pick=chance.random(),
            seconds=chance.uniform(*FROZEN) * LEASE if kind == FREEZE else 0.0,
        )
        for place, kind in enumerate(kinds)
    ]


class Injector:
    """Does to a stack what was planned, and writes each fault as a JSON line into `log` as it happens."""

    def __init__(self, stack: Stack, log: Path) -> None:
        self.done: list[Done] = []
        self.began = time.monotonic()
        self._stack, self._log = stack, log
        self._frozen: set[str] = set()
        self._thawing: set[asyncio.Task[None]] = set()

    async def run(self, faults: Sequence[Fault]) -> None:
        """Carry the plan out, from now on; whatever is frozen goes on at the end."""
        self.began = time.monotonic()
        try:
            for fault in faults:
                await asyncio.sleep(self.began + fault.at - time.monotonic())
                self.strike(fault)
            await asyncio.gather(*self._thawing)
        finally:
            for name in list(self._frozen):
                self._stack.signal(name, signal.SIGCONT)

    def strike(self, fault: Fault) -> None:
        """Do one fault now. A process that does not run at the moment is passed over for the next one."""
        targets = self._targets(fault.kind)
        first = int(fault.pick * len(targets))
        number = signal.SIGSTOP if fault.kind == FREEZE else signal.SIGKILL
        for name in [*targets[first:], *targets[:first]]:
            if name not in self._frozen and (hit := self._stack.signal(name, number)):
                self._note(fault, name, hit.pid)
                if fault.kind == FREEZE:
                    self._frozen.add(name)
                    self._thawing.add(asyncio.create_task(self._thaw(name, hit.pid, fault)))
                return

    def counts(self) -> Counter[str]:
        """How many faults of each kind were done."""
        return Counter(done.kind for done in self.done if done.kind != "thaw")

    def _targets(self, kind: str) -> list[str]:
        match kind:
            case "nats" | "postgres":
                return [kind]
            case "gateway":
                return self._stack.names("gateway")
            case "freeze":
                return self._stack.names(*FREEZABLE)
        return [name for pool in WORKERS for name in self._stack.names(pool) for _ in range(WEIGHTS.get(pool, 1))]

    async def _thaw(self, name: str, pid: int, fault: Fault) -> None:
        await asyncio.sleep(fault.seconds)
        self._stack.signal(name, signal.SIGCONT)
        self._frozen.discard(name)
        self._note(msgspec.structs.replace(fault, kind="thaw"), name, pid)

    def _note(self, fault: Fault, target: str, pid: int) -> None:
        at = time.monotonic() - self.began
        done = Done(at=at, clock=time.time(), kind=fault.kind, target=target, pid=pid, seconds=fault.seconds)
        self.done.append(done)
        with self._log.open("ab") as log:
            log.write(msgspec.json.encode(done) + b"\n")
