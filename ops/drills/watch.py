"""Watches which stages had nobody who was ready: a reader cannot be served before somebody is there to do it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ops.drills.stack import Stack, answers
from ops.local.run_file import Entry

LOOK_EVERY = 0.25
LOOK_SECONDS = 1.0
"""What does not say within this that it is ready is not ready."""
NEEDED = frozenset({"context_fetch", "generation", "tool_execution", "records", "gateway"})
"""A reply stands still where all of one of these are away; their readiness says whether NATS and PostgreSQL answer."""

Span = tuple[float, float]
"""From when to when, in seconds of `time.monotonic()`."""


class Watch:
    """While entered, looks at every process four times a second. `dark` has the spans in which a stage had nobody."""

    def __init__(self, stack: Stack) -> None:
        self.dark: list[Span] = []
        self._stack = stack
        self._since: float | None = None

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self._note(is_dark=False)
        if not self._task.cancelled():
            self._task.result()

    async def _look(self) -> None:
        while True:
            began = time.monotonic()
            entries = [entry for entry in self._stack.entries() if pool_of(entry) in NEEDED]
            ready = await asyncio.gather(*map(_is_ready, entries))
            self._note(is_dark=is_dark(zip(entries, ready, strict=True)))
            await asyncio.sleep(max(0.0, began + LOOK_EVERY - time.monotonic()))

    def _note(self, *, is_dark: bool) -> None:
        now = time.monotonic()
        if is_dark and self._since is None:
            self._since = now
        elif not is_dark and self._since is not None:
            self.dark.append((self._since, now))
            self._since = None


def pool_of(entry: Entry) -> str:
    """`generation` for `generation.2`."""
    return entry.name.partition(".")[0]


def is_dark(looks: Iterable[tuple[Entry, bool]]) -> bool:
    """Whether a pool has nobody who is ready."""
    pools: defaultdict[str, bool] = defaultdict(bool)
    for entry, ready in looks:
        pools[pool_of(entry)] |= ready
    return not all(pools.values())


def in_the_light(began: float, seconds: float, dark: Sequence[Span]) -> float:
    """How much of a silence somebody could have ended: what is left of it without the dark spans."""
    end = began + seconds
    return seconds - sum(max(0.0, min(end, until) - max(began, since)) for since, until in dark)


async def _is_ready(entry: Entry) -> bool:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await answers(entry)
    except TimeoutError:
        return False
