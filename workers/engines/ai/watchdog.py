"""One timer for a whole stream: it ends a wait that lasts too long."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from schemas.faults import EngineTimeout

STOOD_STILL = 1.0
"""Seconds a look may come late. Beyond them not the server but this process stood still (its machine was paused, say):
what the server said meanwhile is still unread, and the wait begins anew."""


class TooLate(EngineTimeout):
    """The server was connected, and silent for longer than allowed: asking again would make the user wait twice."""


class Watchdog:
    """Use as `with watchdog: await ...`, once per wait. Raises TooLate inside the `with` where the wait is too long.

    Only waits inside a `with` are limited, so that the time a consumer takes for itself does not count. The timer
    looks at a timestamp now and then instead of being set anew for each wait, which a stream has thousands of.
    """

    def __init__(self, *, limit: float, total: float) -> None:
        """Seconds: of one wait, and from now to the end of the last."""
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._end = self._loop.time() + total
        self._since: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._fired = False
        self._timer = self._loop.call_later(min(limit, total), self._look)

    def set_limit(self, limit: float) -> None:
        """Limit the next waits to so many seconds each."""
        self._limit = limit
        self._timer.cancel()
        self._look()

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def __enter__(self) -> Self:
        now = self._loop.time()
        if now >= self._end:
            raise TooLate
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._since = now
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._since = None
        if not self._fired:
            return
        self._fired = False
        self._look()
        # Takes back our own cancellation and no one else's, as asyncio.timeout does.
        assert self._task is not None
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TooLate from error

    def _look(self) -> None:
        now = self._loop.time()
        if self._since is not None and now - self._timer.when() > STOOD_STILL:
            self._since = now
        due = self._due(now)
        if due > now:
            self._timer = self._loop.call_at(due, self._look)
        else:
            assert self._task is not None
            self._fired = True
            self._task.cancel()

    def _due(self, now: float) -> float:
        if self._since is not None:
            return min(self._since + self._limit, self._end)
        # Nobody waits: look again at the earliest time at which a wait that begins now would be too long.
        return min(now + self._limit, self._end) if now < self._end else now + self._limit
