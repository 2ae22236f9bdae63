"""One client's reader of one reply: it is opened, reads, is left or sent away, and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.hearing import Hearing
from gateway.joining import Shown
from gateway.reading import Reading
from gateway.records_client import Records
from ops.runtime.bus import Bus
from schemas.faults import Fault
from schemas.records import StoredReply
from schemas.replies import Failed

SEND_SECONDS = 30.0
"""How long a client may take for what it was sent. It can come back with the last id it has seen."""


class ReplyReader:
    """One reader of one reply. Open it before the turn is asked for, so that the first word cannot be missed.

    `replays` bounds how many readers of a process read the stream back at once.
    """

    def __init__(
        self, bus: Bus, records: Records, replays: asyncio.Semaphore, *, turn_id: str, user_id: str, shard: int
    ) -> None:
        self.turn_id = turn_id
        self.hearing = Hearing(bus, turn_id, shard)
        self._reading = Reading(bus, records, replays, self.hearing, turn_id=turn_id, user_id=user_id, shard=shard)
        self.sending_since = 0.0
        """Since when its client has not taken what it was sent, by the loop's clock; 0 where it has taken all."""
        self.on_stalled: Callable[[], None] = self.leave
        """What is done about a client that takes nothing for `SEND_SECONDS`."""

    async def open(self, *, late: bool = False) -> None:
        """Begin to listen. Whoever asks on the bus whether anybody listens to this turn is told so."""
        await self.hearing.open(late=late)

    def come_late(self, stored: StoredReply | None = None) -> Sequence[Shown]:
        """The reply may be under way or over: begin with what the stream has kept of it.

        `stored` is what PostgreSQL has said of it just now; what that shows is given back. Of a turn that has ended
        PostgreSQL has everything.
        """
        return self._reading.come_late(stored)

    async def read(self, timeout: float) -> Sequence[Shown]:
        """What is new, as soon as there is any; nothing after `timeout` seconds of silence. Ends with an End."""
        clock, reading, patience = asyncio.get_running_loop().time, self._reading, self._reading.patience
        end = clock() + timeout
        while True:
            shown = await reading.new()
            if shown:
                patience.something_new()
                return shown
            now = clock()
            if self.closed or now >= end:
                return []
            if not reading.waits:
                continue
            if not await self.hearing.woken(min(end, reading.until(now))) and clock() >= patience.next_look:
                reading.look_in_storage()

    @property
    def all_there_is(self) -> int | None:
        """The last event there is; None while some may still have to be read."""
        return self._reading.all_there_is

    def torn(self) -> Failed:
        """The end for a client that has seen what is not there any more: nothing can honestly follow."""
        return self._reading.torn()

    def doubt(self) -> None:
        """Something may have been missed: read the stream again."""
        self._reading.patience.next_try = 0.0
        self.hearing.let_go()

    def give_up(self, fault: Fault) -> None:
        """End this reader's reading, not the turn: it is told the fault as if the reply had failed."""
        self._reading.given_up = fault
        self.hearing.wake_up()

    def look_at(self, now: float) -> None:
        """End what has taken its time: a wait, or the patience with a client that does not read."""
        self.hearing.look_at(now)
        if self.sending_since and now - self.sending_since > SEND_SECONDS:
            self.sending_since = 0.0
            self.on_stalled()

    @property
    def closed(self) -> bool:
        """Whether nobody is listening any more."""
        return self.hearing.left

    def leave(self) -> None:
        """The client is gone: end a `read` under way."""
        self.hearing.leave()

    def send_away(self) -> None:
        """The client comes back by itself at another gateway: end a `read` under way."""
        self.hearing.leave(moving=True)

    async def hand_over(self, seconds: float) -> None:
        """Of a client that was sent away before the reply's end: give it so long to be back elsewhere.

        Until then whoever asks is told that it listens, or a turn that is to end with its readers would end in between.
        """
        if not self._reading.ended:
            await self.hearing.stay_present(seconds)

    async def close(self) -> None:
        """Stop listening."""
        self.on_stalled = _nothing  # it holds us: only a full collection would free what is buffered
        await self.hearing.close()


def _nothing() -> None:
    """There is no client any more."""
