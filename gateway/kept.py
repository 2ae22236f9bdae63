"""What the stream has kept of one reply, read back in batches."""

from __future__ import annotations

from gateway.hearing import BUFFERED_BYTES
from gateway.joining import Joining, Shown
from ops.runtime.bus import Bus
from ops.runtime.replay import read_batch
from schemas import subjects
from schemas.streams import REPLIES


class Kept:
    """One reader's place in the stream. What was read back without a gap is not read again."""

    def __init__(self, bus: Bus, turn_id: str, shard: int) -> None:
        self._bus, self._subject = bus, subjects.reply(shard, turn_id)
        self._from = self._at = 1
        """Sequences: where a reading begins, and where the one under way has come to."""

    async def read(self, joining: Joining) -> tuple[list[Shown], bool]:
        """What the next batch shows, and whether more follows. Raises BusUnavailable where the stream is away."""
        batch = await read_batch(self._bus, REPLIES.name, self._subject, self._at, BUFFERED_BYTES)
        whole = self._at == self._from and not joining.behind
        if batch.messages:
            self._at = batch.messages[-1][0] + 1
        shown = joining.read_back([data for _, data in batch.messages])
        if whole and not joining.behind:
            self._from = self._at
        return shown, batch.more and bool(batch.messages)

    def begin_again(self) -> None:
        """The next reading begins behind the last event that had nothing missing before it."""
        self._at = self._from
