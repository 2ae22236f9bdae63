"""Hears one reply out: live frames, where some are missing what the stream has kept, in the end the stored reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog

from gateway.records_client import Records
from ops.runtime.bus import Bus, BusUnavailable, Listener
from ops.runtime.replay import replay
from schemas import codec, subjects
from schemas.faults import EngineOverloaded, Fault
from schemas.records import GetReply, StoredReply
from schemas.replies import Delta, End, Failed, Finished, Frame, Gap, Progress, ReplyFold, Start
from schemas.streams import REPLIES

log = structlog.get_logger()

Shown = Delta | Progress | Start | End

BUFFERED_BYTES = 256 * 1024
"""What is kept for a client that reads slowly. Beyond it the live frames are let go, and read back from the stream."""
GAP_WAIT = 1.0
"""Seconds a missing frame may take to come, as itself or in a snapshot, before the stream is read again."""
SILENCE = (10.0, 20.0, 30.0)
"""Seconds of silence after which we look whether the turn has ended without our hearing of it; the last repeats."""


class ReplyReader:
    """One reader of one reply. Open it before the turn is asked for, so that the first word cannot be missed."""

    def __init__(self, bus: Bus, records: Records, *, turn_id: str, user_id: str, shard: int) -> None:
        self.turn_id = turn_id
        self._bus, self._records = bus, records
        self._user_id, self._shard = user_id, shard
        self._fold = ReplyFold()
        self._decode = codec.decoder(Frame).decode
        self._heard: list[bytes] = []
        self._heard_bytes = 0
        self._let_go = False
        self._waiter: asyncio.Future[bool] | None = None
        self._until = 0.0
        self._listener: Listener | None = None
        self._reconnects = bus.reconnects
        self._silences = 0
        self._next_look = 0.0
        self._given_up: Fault | None = None
        self._left = False

    async def open(self) -> None:
        """Begin to listen."""
        self._listener = await self._bus.listen(subjects.live(self._shard, self.turn_id), self._hear)

    @property
    def closed(self) -> bool:
        """Whether nobody is listening any more."""
        return self._left

    def leave(self) -> None:
        """The client is gone: end a `read` under way."""
        self._left = True
        self._wake_up()

    async def close(self) -> None:
        """Stop listening."""
        self._left = True
        if self._listener is not None:
            await self._listener.close()

    def give_up(self, fault: Fault) -> None:
        """End this reader's reading, not the turn: it is told the fault as if the reply had failed."""
        self._given_up = fault
        self._wake_up()

    async def catch_up(self) -> list[Shown]:
        """What the stream has kept from the beginning: for a reader who comes when the reply is under way."""
        return [event async for events in self._replayed() for event in events]

    async def read(self, timeout: float) -> Sequence[Shown]:
        """What is new, as soon as there is any; nothing after `timeout` seconds of silence. Ends with an End."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            shown = await self._new()
            if shown:
                self._silences, self._next_look = 0, 0.0
                return shown
            if self._left or loop.time() >= end:
                return []
            # Counted over reads, whose timeouts may all be shorter.
            self._next_look = self._next_look or loop.time() + self._patience()
            if not await self._woken(min(end, self._next_look)) and loop.time() >= self._next_look:
                self._next_look = 0.0
                shown = await self._look_for_end()
                if shown:
                    return shown

    async def _woken(self, until: float) -> bool:
        """Wait for something to be heard; False where the loop's clock reaches `until` first.

        The clock is looked at by `look_at`, for all readers at once: a timer for each wait would cost more than all
        else that is done for a frame.
        """
        if self._heard or self._given_up is not None or self._left:
            return True
        self._waiter = asyncio.get_running_loop().create_future()
        self._until = until
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def look_at(self, now: float) -> None:
        """End a wait whose time has come."""
        if self._waiter is not None and now >= self._until and not self._waiter.done():
            self._waiter.set_result(False)

    def _wake_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    async def _new(self) -> list[Shown]:
        if self._given_up is not None:
            return [self._failed(self._given_up)]
        if self._let_go or self._bus.reconnects != self._reconnects:
            self._let_go, self._reconnects = False, self._bus.reconnects
            self._heard, self._heard_bytes = [], 0
            return await self.catch_up()
        heard, self._heard, self._heard_bytes = self._heard, [], 0
        shown: list[Shown] = []
        for position, data in enumerate(heard):
            try:
                shown += self._fold.feed(self._decode(data))
            except Gap:
                if self._fold.stranded:
                    return shown or await self._stored()
                # What follows the gap is not lost: it is in the stream, or in this list, in that order.
                self._heard = heard[position:] + self._heard
                return shown or await self._close_gap()
        return shown

    async def _close_gap(self) -> list[Shown]:
        """A frame is missing. The stream may have it; else a snapshot comes; else the stored reply tells all."""
        shown = await self.catch_up()
        if shown:
            return shown
        first = self._heard.pop(0)
        try:
            return self._fold.feed(self._decode(first))
        except Gap:
            log.warning("reply_gap", turn_id=self.turn_id, index=self._fold.index)
        if await self._woken(asyncio.get_running_loop().time() + GAP_WAIT):
            return []
        return await self._stored()

    def _patience(self) -> float:
        return SILENCE[min(self._silences, len(SILENCE) - 1)]

    async def _look_for_end(self) -> list[Shown]:
        # PostgreSQL is asked, not the stream: a frame that was lost on the way shows as a gap with the next one, and
        # reading a stream back costs the server milliseconds that a busy one does not have.
        self._silences += 1
        return await self._stored()

    async def _replayed(self) -> AsyncIterator[list[Shown]]:
        subject = subjects.reply(self._shard, self.turn_id)
        try:
            async for _, data in replay(self._bus, REPLIES.name, subject):
                try:
                    yield self._fold.feed(self._decode(data))
                except Gap:
                    continue
        except BusUnavailable as error:
            log.warning("replay_failed", turn_id=self.turn_id, error=str(error))

    async def _stored(self) -> list[Shown]:
        """What PostgreSQL says of a turn that has ended; nothing while it goes on."""
        try:
            stored = await self._records.ask(GetReply(user_id=self._user_id, turn_id=self.turn_id), StoredReply)
        except Fault as fault:
            log.warning("stored_reply_unavailable", turn_id=self.turn_id, code=fault.code)
            return []
        frames = [self._decode(data) for data in stored.frames]
        if not frames or not isinstance(frames[-1], Finished | Failed):
            return []
        shown: list[Shown] = []
        for frame in frames:
            try:
                shown += self._fold.feed(frame)
            except Gap:
                log.error("stored_reply_differs", turn_id=self.turn_id)
                return [self._failed(EngineOverloaded("The reply could not be read back. Ask for it again."))]
        return shown

    def _failed(self, fault: Fault) -> Failed:
        return Failed(self._fold.epoch, self._fold.index, fault.record, "unread")

    def _hear(self, subject: str, data: bytes) -> None:
        if self._let_go or (self._fold.stranded and not isinstance(self._decode(data), Finished | Failed)):
            return  # to a stranded reader nothing but the end can be told
        self._heard.append(data)
        self._heard_bytes += len(data)
        if self._heard_bytes > BUFFERED_BYTES:
            self._heard, self._heard_bytes, self._let_go = [], 0, True
        self._wake_up()
