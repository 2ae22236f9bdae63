"""The supervisor: starts processes, starts each again when it ends, and stops them all in order."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Protocol

from ops.local.child import Child
from ops.local.readiness import until
from ops.local.run_file import Entry, RunFile

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
STEADY_AFTER = 10.0
EXITS_WHILE_STARTING = 3


class StartFailed(Exception):
    """Something did not come up. The message names it and shows the end of its log."""


class Unit(Protocol):
    """A process as the supervisor sees it. `launch` starts it anew and clears up after the one before."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def health_url(self) -> str: ...
    @property
    def log(self) -> Path: ...

    async def launch(self) -> Child: ...
    async def is_ready(self) -> bool: ...
    async def stop(self, grace: float) -> None: ...


@dataclass(kw_only=True)
class _Kept:
    unit: Unit
    ends_by: float
    child: Child | None = None  # the last one launched
    exits: int = 0
    failure: Exception | None = None
    task: asyncio.Task[None] = field(init=False)


class Supervisor:
    """Keeps units running until `stop`: one that ends is started again after 0.2 s, doubling to 5 s.

    The pause is back at 0.2 s once a unit stayed up for 10 s. Each (re)start is recorded in the run file,
    and each event is told to `say`.
    """

    def __init__(self, run_file: RunFile, say: Callable[[str], None]) -> None:
        self._run_file = run_file
        self._say = say
        self._kept: list[_Kept] = []
        self._started = False

    def keep(self, unit: Unit, ends_by: float) -> None:
        """Start `unit` and keep it running. When all stops, it must have ended `ends_by` seconds after the beginning.

        Units are stopped in the order of these limits, those with the same one together.
        """
        kept = _Kept(unit=unit, ends_by=ends_by)
        kept.task = asyncio.create_task(self._keep(kept), name=unit.name)
        self._kept.append(kept)

    async def until_ready(self, limit: float) -> None:
        """Wait until every unit kept so far is ready.

        Raises StartFailed after `limit` seconds, and earlier where a unit cannot be launched or ends again and again.
        """
        if not self._kept:
            return
        waiting = {asyncio.create_task(self._until_ready(kept)): kept for kept in self._kept}
        try:
            done, late = await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in waiting:
                task.cancel()
        if late:
            raise StartFailed(_not_ready([waiting[task] for task in late], limit))

    def started(self) -> None:
        """The start is over: from now on nothing but `stop` ends the supervision of a unit."""
        self._started = True

    async def stop(self) -> None:
        """Stop everything in order, by force where the time is up. Afterwards no process of ours is left."""
        tasks = [kept.task for kept in self._kept]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        begun = time.monotonic()
        in_order = sorted(self._kept, key=lambda kept: kept.ends_by)
        for ends_by, wave in groupby(in_order, key=lambda kept: kept.ends_by):
            grace = begun + ends_by - time.monotonic()
            await self._stop_together([kept.unit for kept in wave], grace)

    def kill(self) -> None:
        """Kill everything at once, for a `stop` that is to take no more time."""
        for kept in self._kept:
            kept.task.cancel()
            if kept.child:
                kept.child.kill()

    async def _stop_together(self, units: list[Unit], grace: float) -> None:
        results = await asyncio.gather(*(unit.stop(grace) for unit in units), return_exceptions=True)
        for unit, result in zip(units, results, strict=True):
            if isinstance(result, BaseException):
                self._say(f"{unit.name} could not be stopped: {result!r}")

    async def _keep(self, kept: _Kept) -> None:
        pause = FIRST_PAUSE
        while True:
            begun = time.monotonic()
            what = await self._run_once(kept)
            if kept.failure and not self._started:
                return
            if time.monotonic() - begun >= STEADY_AFTER:
                pause = FIRST_PAUSE
            self._say(f"{kept.unit.name} {what}, restarting in {pause:g} s (log: {kept.unit.log})")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run_once(self, kept: _Kept) -> str:
        """Run the unit until it ends, and say how it did."""
        kept.failure = None
        try:
            kept.child = child = await kept.unit.launch()
        # Whatever it is: it is told, and a supervisor that gave up over it would be of no use.
        except Exception as error:
            kept.failure = error
            return f"could not be started: {error or repr(error)}"
        self._record(kept.unit, child)
        await child.wait()
        kept.exits += 1
        return child.describe_exit()

    def _record(self, unit: Unit, child: Child) -> None:
        self._say(f"{unit.name} started (pid {child.pid})")
        try:
            self._run_file.record(
                Entry(
                    name=unit.name,
                    pid=child.pid,
                    url=unit.url,
                    health_url=unit.health_url,
                    started_at=child.started_at,
                )
            )
        except OSError as error:
            self._say(f"run.json could not be written: {error}")

    async def _until_ready(self, kept: _Kept) -> None:
        async def is_ready() -> bool:
            if kept.failure:
                raise StartFailed(str(kept.failure) or repr(kept.failure)) from kept.failure
            if kept.exits >= EXITS_WHILE_STARTING:
                raise StartFailed(_ended_again_and_again(kept))
            return kept.child is not None and kept.child.running and await kept.unit.is_ready()

        await until(is_ready)


def _ended_again_and_again(kept: _Kept) -> str:
    return f"{kept.unit.name} ended {kept.exits} times instead of becoming ready. {_last_words(kept)}"


def _not_ready(late: list[_Kept], limit: float) -> str:
    names = ", ".join(kept.unit.name for kept in late)
    return "\n".join([f"not ready after {limit:g} s: {names}", *map(_last_words, late)])


def _last_words(kept: _Kept) -> str:
    return kept.child.last_words() if kept.child else f"{kept.unit.log} has nothing of it"
