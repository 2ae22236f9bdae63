"""Commits what cannot be had again: tried until the database is back, since giving up would do the work twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
import structlog
import tenacity

log = structlog.get_logger()

T = TypeVar("T")

AT_MOST = 60.0
"""Seconds. After them the message is given back, and another worker takes the turn over."""
PAUSE_MAX = 1.0


async def insist(commit: Callable[[], Awaitable[T]]) -> T:
    """What `commit` gives, tried again while the database is away or busy, for a minute at most.

    It must be safe to repeat: guarded by the owner's epoch, it finds its own first success as "not mine any more".
    Raises the last psycopg error.
    """
    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((psycopg.OperationalError, psycopg.InterfaceError)),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=PAUSE_MAX),
        stop=tenacity.stop_after_delay(AT_MOST),
        before_sleep=_say,
        reraise=True,
    )

    async def once() -> T:  # tenacity awaits what a coroutine function gives, and hands on what a lambda gives
        return await commit()

    return await attempts(once)


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("commit_waits", attempt=state.attempt_number, error=type(error).__name__)
