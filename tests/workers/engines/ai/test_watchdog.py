"""Ending waits that last too long, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from workers.engines.ai.watchdog import TooLate, Watchdog

LONG = 60.0


@contextmanager
def watching(limit: float, total: float = LONG) -> Iterator[Watchdog]:
    watchdog = Watchdog(limit=limit, total=total)
    yield watchdog
    watchdog.close()


async def test_a_wait_beyond_the_limit_is_ended() -> None:
    with watching(0.02) as watchdog, pytest.raises(TooLate), watchdog:
        await asyncio.Event().wait()


async def test_time_outside_of_waits_does_not_count() -> None:
    with watching(0.02) as watchdog:
        with watchdog:
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        with watchdog:
            await asyncio.sleep(0)


async def test_many_short_waits_may_take_longer_than_the_limit() -> None:
    with watching(0.05) as watchdog:
        for _ in range(20):
            with watchdog:
                await asyncio.sleep(0.01)


async def test_a_new_limit_counts_at_once() -> None:
    with watching(LONG) as watchdog:
        watchdog.set_limit(0.02)
        with pytest.raises(TooLate), watchdog:
            await asyncio.Event().wait()


async def test_all_waits_together_have_an_end() -> None:
    async def wait_often(watchdog: Watchdog) -> None:
        while True:
            with watchdog:
                await asyncio.sleep(0.01)

    with watching(LONG, total=0.05) as watchdog, pytest.raises(TooLate):
        await wait_often(watchdog)


async def test_no_wait_begins_after_the_end() -> None:
    with watching(LONG, total=0.01) as watchdog:
        await asyncio.sleep(0.02)
        with pytest.raises(TooLate), watchdog:
            pass


async def test_it_watches_again_after_it_ended_a_wait() -> None:
    with watching(0.02) as watchdog:
        for _ in range(2):
            with pytest.raises(TooLate), watchdog:
                await asyncio.Event().wait()


async def test_someone_elses_cancellation_counts_more_than_a_late_wait() -> None:
    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        with watching(0.02) as watchdog, watchdog:
            asyncio.get_running_loop().call_later(0.02, task.cancel)
            time.sleep(0.05)  # noqa: ASYNC251 - both are due when the loop runs again
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait())


async def test_a_task_that_someone_else_cancels_stays_cancelled() -> None:
    waiting = asyncio.Event()

    async def wait() -> None:
        with watching(LONG) as watchdog, watchdog:
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
