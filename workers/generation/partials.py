"""Keeps the text so far of replies under way in PostgreSQL, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
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
        self._lost: dict[ReplyWriter, Callable[[], None] | None] = {}

    @contextmanager
    def keeping(self, writer: ReplyWriter, claimed: Claimed, lost: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep this reply while the block runs; `lost` is called where it has got another owner."""
        self._open[writer] = claimed
        self._lost[writer] = lost
        try:
            yield
        finally:
            del self._open[writer]
            del self._lost[writer]
            self._kept.pop(writer, None)

    async def run(self) -> None:
        """Store what has grown, for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            grown = {writer: writer.index for writer in self._open if self._has_grown(writer)}
            if grown:
                ours = await self._turns.keep_partial([_partial(writer, self._open[writer]) for writer in grown])
                for writer in grown:
                    # An owner that was frozen learns here that it was followed, and stops paying for a void reply.
                    if writer.turn_id not in ours and (lost := self._lost.get(writer)):
                        lost()
                # One that has ended meanwhile is not to be remembered.
                self._kept.update({writer: index for writer, index in grown.items() if writer in self._open})

    def _has_grown(self, writer: ReplyWriter) -> bool:
        # What may not have reached the stream is not kept: a new owner would take it for shown and forgotten.
        return writer.sure and writer.index > self._kept.get(writer, writer.began_at)


def _partial(writer: ReplyWriter, claimed: Claimed) -> Partial:
    return Partial(
        message_id=part_of(claimed.turn_id, "reply", claimed.round, 0),
        turn_id=claimed.turn_id,
        epoch=claimed.epoch,
        text=writer.text(pending=False),
    )
