"""Commits what cannot be had again: tried until the database is back, since giving up would do the work twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import tenacity

from workers.storage.database import AWAY

log = structlog.get_logger()

T = TypeVar("T")

AT_MOST = 60.0
"""Seconds. After them the message is given back, and another worker takes the turn over."""
PAUSE_MAX = 1.0


async def insist(commit: Callable[[], Awaitable[T]], landed: Callable[[], Awaitable[T]] | None = None) -> T:
    """What `commit` gives, tried again while the database is away or busy, for a minute at most.

    It must be safe to repeat. Guarded by the owner's epoch it finds its own first success, whose answer was lost with
    the connection, as "not mine any more": where a repeated try gives nothing, `landed` says whether that was so.
    Raises the last psycopg error.
    """
    tries = 0
    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(AWAY),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=PAUSE_MAX),
        stop=tenacity.stop_after_delay(AT_MOST),
        before_sleep=_say,
        reraise=True,
    )

    async def once() -> T:  # tenacity awaits what a coroutine function gives, and hands on what a lambda gives
        nonlocal tries
        tries += 1
        return await commit()

    async def look() -> T:
        assert landed is not None
        return await landed()

    found: T = await attempts(once)
    return found if found or tries == 1 or landed is None else await attempts(look)


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("commit_waits", attempt=state.attempt_number, error=type(error).__name__)
