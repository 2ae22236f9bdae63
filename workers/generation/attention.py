"""What a process minds while models speak: stops, claims it has lost, readers that miss a frame or have left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import nats.errors
import structlog

from ops.runtime.bus import Bus, BusUnavailable
from ops.runtime.settings import Generation
from schemas import subjects
from workers.delivery import Fenced
from workers.generation.writer import ReplyWriter
from workers.stops import Stopped

log = structlog.get_logger()

LOOK_EVERY = 1.0
"""Seconds between two rounds of questions. Which replies a round asks about is a matter of their own interval."""
AT_ONCE = 64
"""Questions on their way at a time."""
ANSWER_SECONDS = 1.0
CANCEL_GRACE = 0.5
"""Seconds for `on_disconnect: cancel`: less than a look, so that the second look in a row decides. A gateway's lost
connection to the bus, for a moment, is no reader who left."""


class Attended:
    """One turn's hold on its task: whoever has a reason ends the model's speaking with it, once."""

    def __init__(self) -> None:
        self.reason: Stopped | Fenced | None = None
        self.writer: ReplyWriter | None = None
        self.look_at = self.interval = self.grace = float("inf")
        self.alone_since: float | None = None
        self._task: asyncio.Task[object] | None = None

    def stop(self) -> None:
        """The user, or that nobody listens any more, ends it: what was said is kept."""
        self._interrupt(Stopped())

    def fence(self) -> None:
        """Another worker owns the turn."""
        self._interrupt(Fenced())

    def _interrupt(self, reason: Stopped | Fenced) -> None:
        if self.reason is None:
            self.reason = reason
            if self._task is not None:
                self._task.cancel()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run the block; a reason ends it at its next wait, and is raised out of it. One from before, at once."""
        if self.reason is not None:
            raise self.reason
        self._task = asyncio.current_task()
        assert self._task is not None
        cancelling = self._task.cancelling()
        try:
            yield
        except asyncio.CancelledError:
            # Takes back our own cancellation and no one else's, as asyncio.timeout does.
            if self.reason is not None and self._task.uncancel() <= cancelling:
                raise self.reason from None
            raise
        finally:
            self._task = None


class Attention:
    """One a process. One subscription and one task, however many replies are under way."""

    def __init__(self, bus: Bus, settings: Generation) -> None:
        self._bus, self._settings = bus, settings
        self._open: dict[str, Attended] = {}

    @contextmanager
    def on(self, attended: Attended, writer: ReplyWriter, on_disconnect: str | None) -> Iterator[None]:
        """Mind this reply while the block runs. `on_disconnect` as in the request's `cozy`."""
        attended.writer = writer
        if on_disconnect == "cancel":
            attended.interval, attended.grace = LOOK_EVERY, CANCEL_GRACE
        elif on_disconnect is None:
            attended.interval, attended.grace = self._settings.listener_interval, self._settings.listener_grace
        attended.look_at = asyncio.get_running_loop().time() + attended.interval
        self._open[writer.turn_id] = attended
        try:
            with attended.interruptible():
                yield
        finally:
            self._open.pop(writer.turn_id, None)

    async def run(self) -> None:
        """Hear what readers miss, and look for readers, for ever."""
        wanted = await self._bus.listen(subjects.EVERY_WANTED, self._wanted)
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                await self.look(asyncio.get_running_loop().time())
        finally:
            await wanted.close()

    async def look(self, now: float) -> None:
        """Ask for the readers of every reply whose time it is."""
        due = [(turn_id, attended) for turn_id, attended in self._open.items() if attended.look_at <= now]
        for begin in range(0, len(due), AT_ONCE):
            await asyncio.gather(*(self._look(turn_id, attended, now) for turn_id, attended in due[begin:][:AT_ONCE]))

    async def _look(self, turn_id: str, attended: Attended, now: float) -> None:
        attended.look_at = now + attended.interval
        try:
            await self._bus.ask(subjects.listeners(turn_id), b"", timeout=ANSWER_SECONDS)
        except BusUnavailable as error:
            if not isinstance(error.__cause__, nats.errors.NoRespondersError):
                return  # somebody may be there, and the bus is slow or away
        else:
            attended.alone_since = None
            return
        if attended.alone_since is None:
            attended.alone_since = now
        if now - attended.alone_since >= attended.grace:
            log.info("nobody_listens", turn_id=turn_id)
            attended.stop()

    def _wanted(self, subject: str, data: bytes) -> None:
        attended = self._open.get(subject.rpartition(".")[2])
        if attended is not None and attended.writer is not None:
            attended.writer.wanted()
