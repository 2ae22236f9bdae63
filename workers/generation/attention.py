"""What a process minds while models speak: stops, claims it has lost, readers that miss a frame or have left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

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


class _Reply:
    """A reply under way: when its readers are looked for next, and since when there are none. Seconds."""

    def __init__(self, attended: Attended, writer: ReplyWriter, interval: float, grace: float) -> None:
        self.attended, self.writer, self.interval, self.grace = attended, writer, interval, grace
        self.look_at = asyncio.get_running_loop().time() + interval
        self.alone_since: float | None = None


class Attention:
    """One a process. One subscription and one task, however many replies are under way."""

    def __init__(self, bus: Bus, settings: Generation) -> None:
        self._bus, self._settings = bus, settings
        self._open: dict[str, _Reply] = {}

    @contextmanager
    def on(self, attended: Attended, writer: ReplyWriter, on_disconnect: str | None) -> Iterator[None]:
        """Mind this reply while the block runs. `on_disconnect` as in the request's `cozy`."""
        self._open[writer.turn_id] = _Reply(attended, writer, *self._patience(on_disconnect))
        try:
            with attended.interruptible():
                yield
        finally:
            self._open.pop(writer.turn_id, None)

    def _patience(self, on_disconnect: str | None) -> tuple[float, float]:
        """Seconds between two looks for readers, and for how many there may be none."""
        if on_disconnect == "cancel":
            return LOOK_EVERY, CANCEL_GRACE
        if on_disconnect is None:
            return self._settings.listener_interval, self._settings.listener_grace
        return inf, inf

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
        due = [reply for reply in self._open.values() if reply.look_at <= now]
        for begin in range(0, len(due), AT_ONCE):
            await asyncio.gather(*(self._look(reply, now) for reply in due[begin:][:AT_ONCE]))

    async def _look(self, reply: _Reply, now: float) -> None:
        reply.look_at = now + reply.interval
        try:
            await self._bus.ask(subjects.listeners(reply.writer.turn_id), b"", timeout=ANSWER_SECONDS)
        except BusUnavailable as error:
            if not isinstance(error.__cause__, nats.errors.NoRespondersError):
                return  # somebody may be there, and the bus is slow or away
        else:
            reply.alone_since = None
            return
        if reply.alone_since is None:
            reply.alone_since = now
        if now - reply.alone_since >= reply.grace:
            log.info("nobody_listens", turn_id=reply.writer.turn_id)
            reply.attended.stop()

    def _wanted(self, subject: str, data: bytes) -> None:
        if reply := self._open.get(subject.rpartition(".")[2]):
            reply.writer.wanted()
