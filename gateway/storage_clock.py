"""What time it is in PostgreSQL, as far as a gateway can know: a turn's last moment is told to workers in that time."""

from __future__ import annotations

import asyncio
import time

import structlog

from gateway.records_client import Records
from ops.runtime.bus import BusUnavailable
from schemas.faults import Fault
from schemas.records import Ping, Pong

log = structlog.get_logger()

ASK_EVERY = 10.0
"""Seconds between two looks. In between the monotonic clock counts on; PostgreSQL's may be set, which this bounds."""
ASK_AGAIN_AFTER = 1.0
PATIENCE = 1.0
"""Seconds an answer may take. What it says is that much older at most, and a moment told by it that much earlier."""


class StorageClock:
    """No two machines' clocks are compared: PostgreSQL is asked for its time, and ours only counts seconds."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._ahead: float | None = None
        """PostgreSQL's time when its answer arrived here, less our monotonic clock. In truth it is later there."""

    async def run(self) -> None:
        """Look at PostgreSQL's clock again and again, for ever."""
        while True:
            try:
                await self.look()
            except (Fault, BusUnavailable) as error:
                log.debug("storage_clock_not_seen", error=type(error).__name__)
                await asyncio.sleep(ASK_AGAIN_AFTER)
            else:
                await asyncio.sleep(ASK_EVERY)

    async def look(self) -> None:
        """Ask once. Raises BusUnavailable or the fault that was answered."""
        self._take(await self._records.ask_once(Ping(), Pong, PATIENCE))

    def _take(self, pong: Pong) -> None:
        # A records worker of the version before does not say: then our own clock has to do, as it did then.
        there = time.time() if pong.database_time is None else pong.database_time
        self._ahead = there - time.monotonic()

    async def moment(self, seconds: float) -> float:
        """PostgreSQL's time in so many seconds from now, in Unix seconds; rather too early than too late.

        Raises StorageUnavailable where PostgreSQL was never reached.
        """
        asked = time.monotonic()
        if self._ahead is None:
            self._take(await self._records.ask(Ping(), Pong))
        assert self._ahead is not None
        return self._ahead + asked + seconds
