"""Stopping turns: committed first, and only then told to whoever owns, reads or waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from ops.runtime import metrics
from ops.runtime.bus import Bus, BusUnavailable
from schemas import subjects
from schemas.turns import TurnState
from workers.endings import Endings
from workers.onward import say_again
from workers.storage.database import Connection
from workers.storage.turn_rows import StoppedRow
from workers.storage.turns import Turns

log = structlog.get_logger()

TELLING = 1.0
"""Seconds for each message about a stop. What cannot be told within them is driven by the sweeper."""


class Stopping:
    """A turn that nobody writes ends with the commit. One at work is ended by its owner, who hears of it; where that
    one is silent, another worker takes the turn over a second later and ends it."""

    def __init__(self, turns: Turns, endings: Endings, bus: Bus) -> None:
        self.turns, self.endings, self.bus = turns, endings, bus

    async def stop(self, turn_id: str, user_id: str) -> None:
        """Stop a turn of the user's. One that has ended, and one that is another's, stays as it is.

        May be asked again, and then tells again. Raises psycopg errors: then nothing was stopped.
        """
        stopped = await self.turns.stop(user_id, [turn_id])
        if stopped:
            await self.tell(stopped)
        else:
            await self._tell_again(turn_id, user_id)

    async def stop_before(self, held: Connection, session_id: str, user_id: str) -> list[StoppedRow]:
        """Stop whatever is unanswered in a session that is locked on this connection.

        Nobody knows of it yet: `tell` them after the commit.
        """
        return await self.turns.stop(user_id, await self.turns.unanswered(held, session_id), held)

    async def tell(self, stopped: Sequence[StoppedRow]) -> None:
        """Tell readers, owners and who waits of stops that are committed. While the bus is away the sweeper's work."""
        for row in stopped:
            ended = row.state == TurnState.CANCELLED
            log.info("turn_stopped", turn_id=row.turn_id, session_id=row.session_id, ended=ended)
            if ended:
                metrics.turn_ended("cancelled")
        results = await asyncio.gather(*map(self._tell, stopped), return_exceptions=True)
        for row, error in zip(stopped, results, strict=True):
            if isinstance(error, BusUnavailable):
                log.warning("stop_not_told", turn_id=row.turn_id, error=type(error).__name__)
            elif error is not None:
                raise error

    async def _tell(self, row: StoppedRow) -> None:
        if row.state == TurnState.CANCELLED:
            await self.endings.tell_end(row.turn_id, budget=TELLING)
        else:
            await self.bus.publish(subjects.cancel(row.turn_id), b"")
            await self._give_to_another(row)

    async def _give_to_another(self, row: StoppedRow) -> None:
        """Send the turn's event again: its owner may be frozen, and then a worker that lives must end the turn."""
        message_id = f"{row.turn_id}.stopped.{row.state}.{row.round}"
        await say_again(self.bus, row.state, row.turn_id, row.round, row.shard, msg_id=message_id, budget=TELLING)

    async def _tell_again(self, turn_id: str, user_id: str) -> None:
        """Its end may be committed and not told: whoever stopped it before may have died in between."""
        if await self.turns.was_stopped(user_id, turn_id):
            try:
                await self.endings.tell_end(turn_id, budget=TELLING)
            except BusUnavailable as error:
                log.warning("stop_not_told", turn_id=turn_id, error=type(error).__name__)
