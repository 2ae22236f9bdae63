"""The sweeper: whatever happened, a turn that stands still is driven again from PostgreSQL."""

from __future__ import annotations

import asyncio
import time

import structlog

from ops.runtime import metrics
from ops.runtime.bus import Bus
from ops.runtime.settings import Storage
from schemas import codec, subjects
from schemas.turns import TurnPrepared, TurnState, TurnToolsCalled
from workers.endings import Endings
from workers.storage.turn_rows import Standing
from workers.storage.upkeep import Upkeep

log = structlog.get_logger()

AT_ONCE = 100
"""Turns driven again in one sweep: a sweep after a long outage must not become the next one."""


class Sweeper:
    """Run by every process that has one; an advisory lock lets one at a time find anything."""

    def __init__(self, upkeep: Upkeep, endings: Endings, bus: Bus, settings: Storage) -> None:
        self._upkeep, self._endings, self._bus, self._settings = upkeep, endings, bus, settings

    async def run(self) -> None:
        """Sweep, for ever."""
        while True:
            await asyncio.sleep(self._settings.sweep_interval)
            await self.sweep()

    async def sweep(self) -> int:
        """Drive again what has stood still; says how many turns and sessions that were."""
        turns, sessions = await self._upkeep.sweep(self._settings.sweep_after, AT_ONCE)
        # The first message id may still be in the stream's window of duplicates, where it would be swallowed.
        again = f".again.{time.time_ns()}"
        for turn in turns:
            await self._drive(turn, again)
        for session_id in sessions:
            await self._endings.release(session_id)
        if turns or sessions:
            metrics.swept(len(turns))
            log.warning("swept", turns=len(turns), sessions=len(sessions))
        return len(turns) + len(sessions)

    async def _drive(self, turn: Standing, again: str) -> None:
        if turn.state == TurnState.ACCEPTED:
            await self._endings.announce(turn.turn_id, turn.shard, again=again)
        elif turn.state == TurnState.CALLING_TOOLS:
            called = TurnToolsCalled(turn_id=turn.turn_id, round=turn.round)
            await self._send(subjects.TURN_TOOLS_CALLED, turn, codec.encode(called), again)
        else:
            prepared = TurnPrepared(turn_id=turn.turn_id, round=turn.round)
            await self._send(subjects.TURN_PREPARED, turn, codec.encode(prepared), again)

    async def _send(self, event: str, turn: Standing, data: bytes, again: str) -> None:
        await self._bus.store(subjects.turn_event(event, turn.shard), data, msg_id=f"{turn.turn_id}{again}")
