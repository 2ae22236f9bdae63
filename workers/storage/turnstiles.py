"""Lets what would wait for the same row wait here instead, where waiting holds no connection to the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turnstiles:
    """One for each name, there while somebody is. Between processes the row's lock decides.

    Without them a burst of messages to one session takes every connection of the pool, and each of these waits for one
    and the same lock, while nothing else of the process gets through.
    """

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._inside: dict[str, int] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Go through when whoever came before has left."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._inside[name] = self._inside.get(name, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._inside[name] -= 1
            if not self._inside[name]:
                del self._locks[name], self._inside[name]
