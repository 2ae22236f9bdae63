"""Keeps the text so far of replies under way in PostgreSQL, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ops.runtime.bus import Bus
from schemas.ids import part_of
from workers.generation.writer import ReplyWriter
from workers.storage.turn_rows import Claimed, Partial
from workers.storage.turns import Turns

EVERY_SECONDS = 2.0


class _UnderWay:
    """A reply, and up to which of its events it is kept."""

    def __init__(self, writer: ReplyWriter, claimed: Claimed, lost: Callable[[], None]) -> None:
        self.writer, self.claimed, self.lost = writer, claimed, lost
        self.kept = writer.began_at

    @property
    def has_grown(self) -> bool:
        # What may not have reached the stream is not kept: a new owner would take it for shown and forgotten.
        return self.writer.sure and self.writer.index > self.kept

    def partial(self) -> Partial:
        return Partial(
            message_id=part_of(self.claimed.turn_id, "reply", self.claimed.round, 0),
            turn_id=self.claimed.turn_id,
            epoch=self.claimed.epoch,
            text=self.writer.text(pending=False),
        )


class PartialKeeper:
    """One a process. A reply shorter than the interval is stored once, whole, at its end."""

    def __init__(self, turns: Turns, bus: Bus) -> None:
        self._turns, self._bus = turns, bus
        self._open: set[_UnderWay] = set()

    @contextmanager
    def keeping(self, writer: ReplyWriter, claimed: Claimed, lost: Callable[[], None]) -> Iterator[None]:
        """Keep this reply while the block runs; `lost` is called where it has got another owner."""
        self._open.add(reply := _UnderWay(writer, claimed, lost))
        try:
            yield
        finally:
            self._open.discard(reply)

    async def run(self) -> None:
        """Store what has grown, for ever. Raises psycopg errors."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            grown = {reply: reply.writer.index for reply in self._open if reply.has_grown}
            partials = [reply.partial() for reply in grown]
            # The way to the bus may be cut without anybody having been told: what it has not seen is not kept either.
            if grown and await self._bus.flush():
                ours = await self._turns.keep_partial(partials)
                for reply, index in grown.items():
                    reply.kept = index
                    # An owner that was frozen learns here that it was followed, and stops paying for a void reply.
                    if reply.claimed.turn_id not in ours and reply in self._open:
                        reply.lost()
