"""Hears that turns were stopped: one subscription a process, however many turns are in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from ops.runtime.bus import Bus
from schemas import subjects


class Stopped(Exception):
    """The user said stop while this was at work."""


class Stop(asyncio.Event):
    """Set once the turn's stop is heard."""

    def __init__(self, heard: Callable[[], None] | None) -> None:
        super().__init__()
        self._heard = heard

    def set(self) -> None:
        """Say it, the first time also to the callback."""
        first = not self.is_set()
        super().set()
        if first and self._heard is not None:
            self._heard()


class Stops:
    """One a process. A broadcast can be lost: then the turn is taken from its owner a second after the stop."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._listening: dict[str, set[Stop]] = {}

    async def open(self) -> None:
        """Begin to hear; a new connection hears again by itself."""
        await self._bus.listen(subjects.EVERY_CANCEL, self._hear)

    @contextmanager
    def of(self, turn_id: str, heard: Callable[[], None] | None = None) -> Iterator[Stop]:
        """An event that is set when this turn's stop is heard; then `heard`, which must not block, is called at once.

        To be opened before the turn is claimed: the claim tells of every stop that came before it.
        """
        stop = Stop(heard)
        self._listening.setdefault(turn_id, set()).add(stop)
        try:
            yield stop
        finally:
            self._listening[turn_id].discard(stop)
            if not self._listening[turn_id]:
                del self._listening[turn_id]

    def _hear(self, subject: str, data: bytes) -> None:
        for stop in tuple(self._listening.get(subjects.cancelled_turn(subject), ())):
            stop.set()


@asynccontextmanager
async def unless(stop: asyncio.Event) -> AsyncIterator[None]:
    """Run the block; once the event is set it is cancelled, and ends with Stopped."""
    try:
        async with asyncio.timeout(None) as limit:
            watching = asyncio.create_task(_end(limit, stop))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError as error:
        if limit.expired():
            raise Stopped from error
        raise


async def _end(limit: asyncio.Timeout, stop: asyncio.Event) -> None:
    await stop.wait()
    limit.reschedule(asyncio.get_running_loop().time())
