"""Stages at work inside a test, and work that says what it sees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ops.runtime.bus import Bus
from schemas.turns import TurnCompleted
from tests.workers.jobs import standing
from workers.stage import Stage

Works = Callable[..., Awaitable["Running"]]
Work = Callable[[Any], Awaitable[None]]


class Running:
    """A stage at work. `stop` asks it to stop and waits until it has left."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._stopping = asyncio.Event()
        self._serving = asyncio.create_task(stage.serve(self._stopping))

    def ask_to_stop(self) -> None:
        self._stopping.set()

    async def stop(self) -> None:
        self.ask_to_stop()
        async with asyncio.timeout(20):
            await self._serving


async def nothing(event: TurnCompleted) -> None:
    """Work that is done at once."""


class Seen:
    """Work that says what it sees, and waits where it is told to."""

    def __init__(self, *, holding: bool = False) -> None:
        self.events: asyncio.Queue[TurnCompleted] = asyncio.Queue()
        self.go_on = asyncio.Event()
        if not holding:
            self.go_on.set()

    async def work(self, event: TurnCompleted) -> None:
        self.events.put_nowait(event)
        await self.go_on.wait()

    async def next(self) -> str:
        async with asyncio.timeout(10):
            return (await self.events.get()).turn_id


async def until(question: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes. A `wait_for` in the question may swallow the one cancel of an asyncio.timeout."""
    end = asyncio.get_running_loop().time() + 10
    while not await question():
        assert asyncio.get_running_loop().time() < end, "it never was so"


async def is_empty(bus: Bus) -> bool:
    return await standing(bus) == (0, 0)
