"""Ends tasks for certain. One cancel may not do: Python 3.11 `wait_for` swallows it where its result has just come."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

AGAIN_AFTER = 2.0
"""Seconds until a task that has not ended is cancelled again; longer than anything of ours takes to clean up."""


async def end_all(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel the tasks until all of them have ended. What they raise is theirs to have told."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_AFTER)
