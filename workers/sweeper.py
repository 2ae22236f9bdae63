"""The sweeper: whatever happened, a turn that stands still is driven again from PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from ops.runtime import metrics, topology
from ops.runtime.bus import Bus, BusUnavailable
from ops.runtime.settings import Storage
from schemas import subjects
from schemas.ids import new_id
from schemas.streams import CONSUMERS, CONTEXT_FETCH, GENERATION, MEMORY_WRITEBACK, TOOL_EXECUTION
from schemas.turns import TurnState
from workers.backlog import Backlog
from workers.endings import Endings
from workers.onward import say_again
from workers.storage.turn_rows import Standing
from workers.storage.upkeep import Upkeep

log = structlog.get_logger()

AT_ONCE = 100
"""Turns driven again in one sweep: a sweep after a long outage must not become the next one."""
LOOK_BACK_EVERY = 60.0
"""Seconds between two looks for ended turns that memory has never heard of."""
LOOK_BACK = 5 * LOOK_BACK_EVERY
FIRST_LOOK_BACK = 3600.0
"""Seconds that a look goes back. The first one may take too long on a busy day: it is not repeated then."""
TIDY_EVERY = 60.0
"""Seconds between two clearings of what nobody will ask for again."""
STAGE_OF = {
    TurnState.ACCEPTED: CONTEXT_FETCH,
    TurnState.PREPARED: GENERATION,
    TurnState.GENERATING: GENERATION,
    TurnState.CALLING_TOOLS: TOOL_EXECUTION,
}
"""Which stage a turn in this state waits for."""


PATIENCE = 30.0
"""Seconds beyond the interval after which another process sweeps in the place of one that is frozen or cut off."""


class Sweeper:
    """Run by every process that has one; an advisory lock lets one at a time sweep, and the others ask nothing."""

    def __init__(self, upkeep: Upkeep, endings: Endings, bus: Bus, settings: Storage) -> None:
        self._upkeep, self._endings, self._bus, self._settings = upkeep, endings, bus, settings
        self._backlog = Backlog(bus)
        self._look_back, self._look_back_at = FIRST_LOOK_BACK, 0.0
        self._tidied_at = float("-inf")

    async def run(self) -> None:
        """Sweep, for ever, where no other process does. Raises psycopg errors and BusUnavailable."""
        interval = self._settings.sweep_interval
        while True:
            async with self._upkeep.sweeping(interval + PATIENCE) as ours:
                if ours:
                    await asyncio.sleep(interval)
                    await self.sweep()
            if not ours:
                await asyncio.sleep(interval)

    async def sweep(self) -> int:
        """Drive again what has stood still; says how many turns and sessions that were."""
        settings = self._settings
        restored = await topology.restore(self._bus, lease=settings.lease, replicas=settings.nats_replicas)
        if restored:
            log.error("streams_restored", made=restored)
        ages = {spec: await self._backlog.age(spec) for spec in CONSUMERS}
        backlogs = {state.value: age for state, spec in STAGE_OF.items() if (age := ages[spec]) is not None}
        found = await self._upkeep.sweep(settings.sweep_after, AT_ONCE, lease=settings.lease, backlogs=backlogs)
        # The first message id may still be in the stream's window of duplicates, where it would be swallowed.
        again = f".again.{new_id()}"
        await self._drive_all(found.turns, again)
        for session_id in found.sessions:
            await self._endings.release(session_id)
        now = asyncio.get_running_loop().time()
        untold = await self._untold(now) if ages[MEMORY_WRITEBACK] is None else []
        for turn in untold:
            await self._endings.tell_end(turn.turn_id, again=again)
        await self._tidy(now)
        count = len(found.turns) + len(found.sessions) + len(untold)
        if count:
            metrics.swept(count)
            log.warning("swept", turns=len(found.turns), sessions=len(found.sessions), untold=len(untold))
        return count

    async def _untold(self, now: float) -> list[Standing]:
        """Ended turns that memory never heard of: looked for once in a while, first far back, then not so far."""
        if now < self._look_back_at:
            return []
        since, self._look_back, self._look_back_at = self._look_back, LOOK_BACK, now + LOOK_BACK_EVERY
        untold = await self._upkeep.untold(self._settings.sweep_after, since, AT_ONCE)
        if len(untold) == AT_ONCE:  # there are more
            self._look_back, self._look_back_at = since, 0.0
        return untold

    async def _tidy(self, now: float) -> None:
        """Clear away, once in a while, what nobody will ask for again."""
        if now - self._tidied_at >= TIDY_EVERY:
            self._tidied_at = now
            await self._upkeep.forget_refusals()

    async def _drive_all(self, turns: Sequence[Standing], again: str) -> None:
        for place, turn in enumerate(turns):
            try:
                await self._drive(turn, again)
            except BusUnavailable:
                await self._upkeep.not_driven([left.turn_id for left in turns[place:]], self._settings.sweep_after)
                raise

    async def _drive(self, turn: Standing, again: str) -> None:
        if turn.stopped:
            # An owner that is at work hears nothing but this: its own event, come again, it takes for a repeat.
            await self._bus.publish(subjects.cancel(turn.turn_id), b"")
        if turn.state == TurnState.ACCEPTED:
            await self._endings.announce(turn.turn_id, turn.shard, again=again)
        else:
            message_id = f"{turn.turn_id}{again}"
            await say_again(self._bus, turn.state, turn.turn_id, turn.round, turn.shard, msg_id=message_id)
