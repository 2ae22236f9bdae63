"""Where a reader's next events come from: what it hears, what the stream has kept, what PostgreSQL has."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Sequence

import structlog

from gateway.hearing import Hearing
from gateway.joining import Differs, Joining, Shown
from gateway.kept import Kept
from gateway.patience import GAP_PATIENCE, Patience
from gateway.records_client import Records
from ops.runtime.bus import Bus, BusUnavailable
from schemas import subjects
from schemas.faults import EngineOverloaded, Fault, StorageUnavailable
from schemas.records import GetReply, StoredReply
from schemas.replies import Delta, Failed
from schemas.turns import ENDS, TurnState

log = structlog.get_logger()


class Source(enum.Enum):
    """Where it reads now."""

    LIVE = enum.auto()
    """What is heard. Nothing is missing."""
    GAP = enum.auto()
    """What is heard, but something is missing: until it is time to read it back, its owner may send it again."""
    OWNER = enum.auto()
    """As in a gap, once its owner was asked: it has every word at hand."""
    STREAM = enum.auto()
    """What the stream has kept, a batch at a time."""
    STORED = enum.auto()
    """What PostgreSQL has, a page at a time: of a turn that has ended all of it and its end."""


LIVE, GAP, OWNER, STREAM, STORED = Source


class Reading:
    """One reply as one reader reads it. `replays` bounds how many of a process read the stream back at once."""

    def __init__(
        self,
        bus: Bus,
        records: Records,
        replays: asyncio.Semaphore,
        hearing: Hearing,
        *,
        turn_id: str,
        user_id: str,
        shard: int,
    ) -> None:
        self.patience = Patience()
        self.given_up: Fault | None = None
        """Why nothing more is read; who reads on is told so."""
        self._bus, self._records, self._replays, self._hearing = bus, records, replays, hearing
        self._turn_id, self._user_id = turn_id, user_id
        self._joining, self._kept = Joining(), Kept(bus, turn_id, shard)
        self._source = self._then = LIVE
        """Where it reads, and where once that is read to its end."""

    def come_late(self, stored: StoredReply | None) -> Sequence[Shown]:
        """The reply may be under way or over. `stored`: its first page, where PostgreSQL was asked; it is shown."""
        if stored is None:
            self._turn_to(STREAM, then=STORED)
            return []
        if stored.state == TurnState.GENERATING:
            # Its owner has every word at hand; for the stream they lie among those of all other replies.
            self._joining.unread = True
            self._turn_to(STORED, then=OWNER)
        else:
            self._turn_to(STORED, then=LIVE if stored.state in ENDS else STREAM)
        return self._show_stored(stored)

    @property
    def all_there_is(self) -> int | None:
        """The last event there is; None while some may still have to be read."""
        return self._joining.fold.index if self._source is LIVE else None

    @property
    def ended(self) -> bool:
        """Whether the reply's end was shown."""
        return self._joining.fold.end is not None

    @property
    def waits(self) -> bool:
        """Whether there is nothing to do but to listen: until `until`."""
        return self._source is not STREAM and self._source is not STORED

    def until(self, now: float) -> float:
        """When there is something to do again though nothing was heard."""
        silent = self.patience.silent(now)
        return silent if self._source is LIVE else min(silent, self.patience.next_try)

    def look_in_storage(self) -> None:
        """Ask PostgreSQL next, not the stream: a frame that was lost on the way shows as a gap with the next one."""
        self.patience.looked()
        self._turn_to(STORED)

    async def new(self) -> list[Shown]:
        """What is new where it reads now; perhaps nothing."""
        if self.given_up is not None:
            return [self.failed(self.given_up)]
        if self._source is STORED:
            return await self._page()
        if self._hearing.has_let_go():
            self._joining.let_go()
            if self._source is LIVE:  # a gap has its time
                self._turn_to(STREAM)
        if self._source is STREAM:
            return await self._read_back()
        if self._source is not LIVE and await self._is_time():
            self._turn_to(STORED if self._joining.fold.stranded else STREAM)
            return []
        return self._hear()

    def failed(self, fault: Fault) -> Failed:
        """The end of the reading, not of the reply."""
        self.given_up = fault
        return Failed(self._joining.fold.epoch, self._joining.fold.index, fault.record, "unread")

    def torn(self) -> Failed:
        """The end for a client that has seen what is not there any more: nothing can honestly follow."""
        return self.failed(EngineOverloaded("The reply could not be read back. Ask for it again."))

    def _turn_to(self, source: Source, then: Source = LIVE) -> None:
        """Read there next. To listen where something is missing is to wait for it."""
        gap = source is LIVE and self._joining.has_gap
        self._source, self._then = GAP if gap else source, then

    def _hear(self) -> list[Shown]:
        joining, heard = self._joining, self._hearing.take()
        if not heard and self._source is LIVE:
            return []
        shown = joining.heard(heard)
        if joining.behind or self._source is not LIVE:
            self._mind_gap()
            self._turn_to(LIVE)
        return shown

    def _mind_gap(self) -> None:
        if self._joining.has_gap:
            self.patience.mind_gap(asyncio.get_running_loop().time())
        else:
            self.patience.no_gap()
        self._hearing.keep(self._joining.behind)

    async def _is_time(self) -> bool:
        """Whether what is missing is to be read back now."""
        now = asyncio.get_running_loop().time()
        if self._source is OWNER:
            self.patience.wait_for_owner(now)
            await self._want()
        return self.patience.is_time(now)

    async def _want(self) -> None:
        """Ask whoever writes the reply for all of it."""
        if self.patience.may_want(asyncio.get_running_loop().time()):
            with contextlib.suppress(BusUnavailable):  # asked again with the next try
                await self._bus.publish(subjects.wanted(self._turn_id), b"")

    async def _read_back(self) -> list[Shown]:
        """A batch of what the stream has kept."""
        joining = self._joining
        if self._replays.locked():
            await self._want()  # many read back at once: perhaps the owner's snapshot is here before our turn comes
        async with self._replays:
            shown = joining.heard(self._hearing.take(), reading=True)
            self._mind_gap()
            if not joining.has_gap and any(isinstance(event, Delta) for event in shown):
                self._turn_to(LIVE)
                return shown
            try:
                found, more = await self._kept.read(joining)
            except BusUnavailable as error:
                log.warning("replay_failed", turn_id=self._turn_id, error=str(error))
                joining.unread = True
                await self._end_reading_back()
                return shown
        self._mind_gap()
        if not more:
            await self._end_reading_back()
        return shown + found

    async def _end_reading_back(self) -> None:
        """The stream has been read to its end. Where that was not enough: ask the owner, then PostgreSQL."""
        joining, fold, late = self._joining, self._joining.fold, self._then is STORED
        self._kept.begin_again()
        if fold.end is not None:
            joining.behind.clear()
        if not joining.has_gap:
            # Nothing at all: its frames are gone, or it has none yet.
            nothing = fold.index == 0 and not fold.started and fold.end is None
            self._turn_to(STORED if late and nothing else LIVE)
            return
        waited = self.patience.tried(asyncio.get_running_loop().time())
        hopeless = joining.has_end_behind or waited >= GAP_PATIENCE or (late and fold.index == 0)
        self._turn_to(STORED if hopeless else LIVE)
        log.warning("reply_gap", turn_id=self._turn_id, index=fold.index, waited_ms=round(waited * 1000))
        joining.let_go()
        self._hearing.keep(joining.behind)
        await self._want()

    async def _page(self) -> list[Shown]:
        question = GetReply(user_id=self._user_id, turn_id=self._turn_id, after=self._joining.fold.index)
        try:
            stored = await self._records.ask(question, StoredReply)
        except StorageUnavailable as fault:
            log.warning("stored_reply_unavailable", turn_id=self._turn_id, code=fault.code)
            self._turn_to(self._then)
            return []
        except Fault as fault:
            return [self.failed(fault)]
        return self._show_stored(stored)

    def _show_stored(self, page: StoredReply) -> list[Shown]:
        try:
            shown = self._joining.stored(page)
        except Differs:
            log.error("stored_reply_differs", turn_id=self._turn_id)
            return [self.torn()]
        self._mind_gap()
        if not page.more or self._joining.fold.stranded:
            self._turn_to(self._then)
        return shown
