"""Hears one reply out: live frames, where some are missing what the stream has kept, in the end the stored reply."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import msgspec
import structlog

from gateway.hearing import BUFFERED_BYTES, Hearing
from gateway.records_client import Records
from ops.runtime.bus import Bus, BusUnavailable
from ops.runtime.replay import read_batch
from schemas import codec, subjects
from schemas.faults import EngineOverloaded, Fault, StorageUnavailable
from schemas.records import GetReply, StoredReply
from schemas.replies import Delta, End, Failed, Frame, Gap, Progress, ReplyFold, Snapshot, Start
from schemas.streams import REPLIES
from schemas.turns import ENDS, TurnState

log = structlog.get_logger()

Shown = Delta | Progress | Start | End

OWNER_PATIENCE = 0.5
"""Seconds a reader that comes late waits for the owner's snapshot before it reads the stream."""
GAP_WAIT = 1.0
"""Seconds between two tries to close a gap: the stream is read again, and the reply's owner asked for a snapshot."""
GAP_PATIENCE = 3.0
"""Seconds of a gap after which PostgreSQL is asked as well."""
GAP_WAIT_LONG = 10.0
"""Seconds between two tries from then on."""
SEND_SECONDS = 30.0
"""How long a client may take for what it was sent. It can come back with the last id it has seen."""
SILENCE = (10.0, 20.0, 30.0)
"""Seconds of silence after which we look whether the turn has ended without our hearing of it; the last repeats."""


class ReplyReader:
    """One reader of one reply. Open it before the turn is asked for, so that the first word cannot be missed.

    `replays` bounds how many readers of a process read the stream back at once.
    """

    def __init__(
        self, bus: Bus, records: Records, replays: asyncio.Semaphore, *, turn_id: str, user_id: str, shard: int
    ) -> None:
        self.turn_id = turn_id
        self.hearing = Hearing(bus, turn_id, shard)
        self._bus, self._records, self._replays = bus, records, replays
        self._user_id = user_id
        self._subject = subjects.reply(shard, turn_id)
        self.sending_since = 0.0
        """Since when its client has not taken what it was sent, by the loop's clock; 0 where it has taken all."""
        self.on_stalled: Callable[[], None] = self.leave
        """What is done about a client that takes nothing for `SEND_SECONDS`."""
        self._fold = ReplyFold()
        self._decode = codec.decoder(Frame).decode
        self._behind: list[bytes] = []
        """Frames behind a gap, kept until it is closed."""
        self._unread = self._ask_owner = False
        """Whether the stream is still to be read; whether the owner is to be asked first."""
        self._gap_since: float | None = None
        self._next_try = 0.0
        self._wanted_at = float("-inf")
        self._replaying = self._paging = self._late = False
        self._from = self._at = 1
        """Sequences of the stream: where the next reading begins, and where the one under way has come to."""
        self._silences = 0
        self._next_look = 0.0
        self._given_up: Fault | None = None

    async def open(self, *, late: bool = False) -> None:
        """Begin to listen. Whoever asks on the bus whether anybody listens to this turn is told so."""
        await self.hearing.open(late=late)

    def come_late(self, stored: StoredReply | None = None) -> Sequence[Shown]:
        """The reply may be under way or over: begin with what the stream has kept of it.

        `stored` is what PostgreSQL has said of it just now; what that shows is given back. Of a turn that has ended
        PostgreSQL has everything.
        """
        if stored is None:
            self._late = self._replaying = True
            return []
        if stored.state == TurnState.GENERATING:
            # Its owner has every word at hand; for the stream they lie among those of all other replies.
            self._unread, self._ask_owner = True, True
        else:
            self._replaying = stored.state not in ENDS
        return self._from_stored(stored)

    @property
    def all_there_is(self) -> int | None:
        """The last event there is; None while some may still have to be read."""
        return None if self._replaying or self._paging or self._has_gap else self._fold.index

    @property
    def closed(self) -> bool:
        """Whether nobody is listening any more."""
        return self.hearing.left

    def leave(self) -> None:
        """The client is gone, or sent elsewhere: end a `read` under way."""
        self.hearing.leave()

    async def close(self) -> None:
        """Stop listening."""
        await self.hearing.close()

    def look_at(self, now: float) -> None:
        """End what has taken its time: a wait, or the patience with a client that does not read."""
        self.hearing.look_at(now)
        if self.sending_since and now - self.sending_since > SEND_SECONDS:
            self.sending_since = 0.0
            self.on_stalled()

    def give_up(self, fault: Fault) -> None:
        """End this reader's reading, not the turn: it is told the fault as if the reply had failed."""
        self._given_up = fault
        self.hearing.wake_up()

    def doubt(self) -> None:
        """Something may have been missed: read the stream again."""
        self._next_try = 0.0
        self.hearing.let_go()

    async def read(self, timeout: float) -> Sequence[Shown]:
        """What is new, as soon as there is any; nothing after `timeout` seconds of silence. Ends with an End."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            shown = await self._new()
            if shown:
                self._silences, self._next_look = 0, 0.0
                return shown
            now = loop.time()
            if self.closed or now >= end:
                return []
            if self._replaying or self._paging:
                continue
            # Counted over reads, whose timeouts may all be shorter.
            self._next_look = self._next_look or now + SILENCE[min(self._silences, len(SILENCE) - 1)]
            until = min(end, self._next_look, self._next_try if self._has_gap else end)
            if not await self.hearing.woken(until) and loop.time() >= self._next_look:
                # PostgreSQL, not the stream: a frame that was lost on the way shows as a gap with the next one.
                self._silences, self._next_look, self._paging = self._silences + 1, 0.0, True

    @property
    def _has_gap(self) -> bool:
        return self._unread or bool(self._behind)

    async def _new(self) -> Sequence[Shown]:
        if self._given_up is not None:
            return [self._failed(self._given_up)]
        if self._paging:
            return await self._page()
        if self.hearing.has_let_go():
            self._replaying = self._replaying or not self._has_gap  # a gap has its time
            del self._behind[1:]
        if self._replaying:
            return await self._replay()
        if self._ask_owner:
            self._ask_owner = False
            self._gap_since = asyncio.get_running_loop().time()
            self._next_try = self._gap_since + OWNER_PATIENCE
            await self._want()
        if self._has_gap and asyncio.get_running_loop().time() >= self._next_try:
            self._replaying, self._paging = not self._fold.stranded, self._fold.stranded
            return []
        return self._take(self.hearing.take())

    def _take(self, frames: Sequence[bytes], *, live: bool = True) -> list[Shown]:
        """What these frames show. Those behind a gap are kept, and shown once something has closed it.

        A failure told from outside does not know how many words there are: who has still to read them keeps it back.
        """
        fold = self._fold
        shown: list[Shown] = []
        stood = (fold.index, fold.epoch)
        for data in frames:
            frame = self._decode(data)
            if live and (self._unread or self._replaying) and isinstance(frame, Failed):
                self._behind.append(data)
                continue
            try:
                shown += fold.feed(frame)
            except Gap:
                if not fold.stranded or isinstance(frame, End):
                    self._behind.append(data)
        if self._unread and any(isinstance(event, Delta) for event in shown):
            self._unread = False  # shown without a gap: whatever came before it is there
        if self._behind and stood != (fold.index, fold.epoch):
            behind, self._behind = self._behind, []
            return shown + self._take(behind)
        if not self._has_gap:
            self._gap_since = None
        elif self._gap_since is None:
            self._gap_since = self._next_try = asyncio.get_running_loop().time()
        self.hearing.keep(self._behind)
        return shown

    async def _replay(self) -> list[Shown]:
        """A batch of what the stream has kept."""
        if self._replays.locked():
            await self._want()  # many read back at once: perhaps the owner's snapshot is here before our turn comes
        async with self._replays:
            shown = self._take(self.hearing.take())
            if not self._has_gap and any(isinstance(event, Delta) for event in shown):
                self._replaying = False
                return shown
            try:
                batch = await read_batch(self._bus, REPLIES.name, self._subject, self._at, BUFFERED_BYTES)
            except BusUnavailable as error:
                log.warning("replay_failed", turn_id=self.turn_id, error=str(error))
                self._unread = True
                await self._replayed()
                return shown
        self._unread = False
        whole = self._at == self._from and not self._behind
        self._at = batch.messages[-1][0] + 1 if batch.messages else self._at
        shown += self._take([data for _, data in batch.messages], live=False)
        if whole and not self._behind:
            self._from = self._at
        if not (batch.more and batch.messages):
            await self._replayed()
        return shown

    async def _replayed(self) -> None:
        """The stream has been read to its end. Where that was not enough: ask the owner, then PostgreSQL."""
        fold, now = self._fold, asyncio.get_running_loop().time()
        late, self._late = self._late, False
        self._replaying, self._at = False, self._from
        if fold.end is not None:
            self._behind.clear()
        if not self._has_gap:
            # Nothing at all: its frames are gone, or it has none yet.
            self._paging = late and fold.index == 0 and not fold.started and fold.end is None
            return
        waited = now - (self._gap_since or now)
        self._next_try = now + (GAP_WAIT if waited < GAP_PATIENCE else GAP_WAIT_LONG)
        ended = any(isinstance(self._decode(data), End) for data in self._behind)
        self._paging = ended or waited >= GAP_PATIENCE or (late and fold.index == 0)
        log.warning("reply_gap", turn_id=self.turn_id, index=fold.index, waited_ms=round(waited * 1000))
        del self._behind[1:]  # the stream has what is behind the gap
        self.hearing.keep(self._behind)
        await self._want()

    async def _want(self) -> None:
        """Ask whoever writes the reply for all of it."""
        now = asyncio.get_running_loop().time()
        if now - self._wanted_at >= GAP_WAIT:
            self._wanted_at = now
            with contextlib.suppress(BusUnavailable):  # asked again with the next try
                await self._bus.publish(subjects.wanted(self.turn_id), b"")

    async def _page(self) -> list[Shown]:
        """A page of what PostgreSQL has: of a turn that has ended all of it and its end."""
        question = GetReply(user_id=self._user_id, turn_id=self.turn_id, after=self._fold.index)
        try:
            stored = await self._records.ask(question, StoredReply)
        except StorageUnavailable as fault:
            log.warning("stored_reply_unavailable", turn_id=self.turn_id, code=fault.code)
            self._paging = False
            return []
        except Fault as fault:
            return [self._failed(fault)]
        return self._from_stored(stored)

    def _from_stored(self, stored: StoredReply) -> list[Shown]:
        frames, self._paging = [self._decode(data) for data in stored.frames], stored.more
        if self._fold.stranded:
            self._paging, frames = False, [frame for frame in frames if isinstance(frame, End)]
        before, shown = self._fold.index, list[Shown]()
        for frame in frames:
            if isinstance(frame, Snapshot):
                # What is committed holds whoever owns the turn by now.
                frame = msgspec.structs.replace(frame, epoch=max(frame.epoch, self._fold.epoch, self._fold.fenced))
            try:
                shown += self._fold.feed(frame)
            except Gap:
                return self._differing()
        if stored.more and self._fold.index == before:
            return self._differing()
        behind, self._behind = self._behind, []
        return shown + self._take(behind)

    def _differing(self) -> list[Shown]:
        log.error("stored_reply_differs", turn_id=self.turn_id)
        return [self.torn()]

    def torn(self) -> Failed:
        """The end for a client that has seen what is not there any more: nothing can honestly follow."""
        return self._failed(EngineOverloaded("The reply could not be read back. Ask for it again."))

    def _failed(self, fault: Fault) -> Failed:
        self._given_up = fault
        return Failed(self._fold.epoch, self._fold.index, fault.record, "unread")
