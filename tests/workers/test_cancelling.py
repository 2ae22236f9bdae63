"""A task that swallows a cancel ends all the same."""

from __future__ import annotations

import asyncio

import pytest

from workers import cancelling
from workers.cancelling import end_all


async def test_a_task_that_swallowed_a_cancel_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "AGAIN_AFTER", 0.01)
    begun = asyncio.Event()

    async def stubborn() -> None:
        for _ in range(2):
            try:
                begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.sleep(0))]
    await begun.wait()
    async with asyncio.timeout(5):
        await end_all(tasks)
    assert all(task.done() for task in tasks)


async def test_no_tasks_are_ended_at_once() -> None:
    await end_all([])
