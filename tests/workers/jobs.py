"""Messages of a work queue, for tests of who takes them and how they are settled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.msg import Msg
from nats.js.api import ConsumerInfo

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.streams import MEMORY_WRITEBACK, TURNS
from schemas.turns import TurnCompleted
from workers.consumer import PullLoop

STAGE = MEMORY_WRITEBACK.stage
SUBJECT = subjects.turn_event(subjects.TURN_COMPLETED, 0)


async def post(bus: Bus, *turn_ids: str) -> None:
    """Put an event for each turn into the queue."""
    for turn_id in turn_ids:
        await bus.store(SUBJECT, codec.encode(TurnCompleted(turn_id=turn_id)), msg_id=None)


async def take(bus: Bus, timeout: float = 5) -> Msg:
    """The next message of the queue, in this test's hands. Raises nats.errors.TimeoutError where none comes."""
    subscription = await bus.client.jetstream().pull_subscribe_bind(STAGE, TURNS.name)
    (message,) = await subscription.fetch(1, timeout=timeout)
    await subscription.unsubscribe()
    return message


async def standing(bus: Bus) -> tuple[int, int]:
    """How many messages wait, and how many are in somebody's hands."""
    await bus.flush()
    info: ConsumerInfo = await bus.client.jetstream().consumer_info(TURNS.name, STAGE)
    return info.num_pending or 0, info.num_ack_pending or 0


class Hands:
    """A handler that keeps every message in its hands until it is told to let go."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.most = 0
        self.let_go = asyncio.Event()
        self._in_hand = 0
        self._changed = asyncio.Condition()

    async def take(self, message: Msg) -> None:
        async with self._changed:
            self.taken.append(turn_of(message))
            self._in_hand += 1
            self.most = max(self.most, self._in_hand)
            self._changed.notify_all()
        try:
            await self.let_go.wait()
            await message.ack()
        finally:
            self._in_hand -= 1

    async def until(self, count: int, seconds: float = 10) -> None:
        """Wait until so many messages have been taken in all."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.taken) >= count)


def turn_of(message: Msg) -> str:
    """Whose event it is."""
    return codec.decode(message.data, TurnCompleted).turn_id


def loop_on(bus: Bus, handle: Callable[[Msg], Awaitable[Any]], slots: int, alive: float = 1.0) -> PullLoop:
    """A loop that takes from the queue."""
    return PullLoop(bus, TURNS.name, STAGE, handle, slots, alive)
