"""When each key was last used: kept in memory, stored once a minute, never while somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import structlog

from workers.storage.callers import Callers

log = structlog.get_logger()

STORE_EVERY = 60.0
"""Seconds."""


def _now() -> datetime:
    return datetime.now(UTC)


class LastUsed:
    """Moments not yet stored, one a key. A crash loses at most the last minute of them."""

    def __init__(self, callers: Callers, now: Callable[[], datetime] = _now) -> None:
        self._callers, self._now = callers, now
        self._moments: dict[str, datetime] = {}

    def note(self, key_id: str) -> None:
        """The key was used just now."""
        self._moments[key_id] = self._now()

    async def store(self) -> None:
        """Store what was noted since the last time. What cannot be stored is logged and kept for the next time."""
        moments = dict(self._moments)
        if not moments:
            return
        try:
            await self._callers.note_last_use(moments)
        except psycopg.Error as error:
            log.warning("last_use_not_stored", keys=len(moments), error=type(error).__name__, sqlstate=error.sqlstate)
            return
        self._forget(moments)

    async def store_for_ever(self, every: float = STORE_EVERY) -> None:
        """Store every so many seconds."""
        while True:
            await asyncio.sleep(every)
            await self.store()

    def _forget(self, stored: dict[str, datetime]) -> None:
        for key_id, moment in stored.items():
            if self._moments[key_id] is moment:
                del self._moments[key_id]
