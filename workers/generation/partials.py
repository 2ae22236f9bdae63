"""Keeps the text so far of replies under way in PostgreSQL, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.ids import part_of
from workers.generation.writer import ReplyWriter
from workers.storage.turn_rows import Claimed, Partial
from workers.storage.turns import Turns

EVERY_SECONDS = 2.0


class PartialKeeper:
    """One a process. A reply shorter than the interval is stored once, whole, at its end."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._open: dict[ReplyWriter, Claimed] = {}
        self._kept: dict[ReplyWriter, int] = {}

    @contextmanager
    def keeping(self, writer: ReplyWriter, claimed: Claimed) -> Iterator[None]:
        """Keep this reply while the block runs."""
        self._open[writer] = claimed
        try:
            yield
        finally:
            del self._open[writer]
            self._kept.pop(writer, None)

    async def run(self) -> None:
        """Store what has grown, for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            grown = {writer: writer.index for writer in self._open if self._has_grown(writer)}
            if grown:
                await self._turns.keep_partial([_partial(writer, self._open[writer]) for writer in grown])
                # One that has ended meanwhile is not to be remembered.
                self._kept.update({writer: index for writer, index in grown.items() if writer in self._open})

    def _has_grown(self, writer: ReplyWriter) -> bool:
        return writer.index > self._kept.get(writer, writer.began_at)


def _partial(writer: ReplyWriter, claimed: Claimed) -> Partial:
    return Partial(
        message_id=part_of(claimed.turn_id, "reply", claimed.round, 0),
        turn_id=claimed.turn_id,
        epoch=claimed.epoch,
        text=writer.text(),
    )
