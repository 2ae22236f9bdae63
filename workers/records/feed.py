"""Feeds a FastStream subscriber with questions, and stops without losing one.

FastStream's own way with several workers keeps messages in a queue that it drops when it stops, and stops hearing only
after it has waited for what runs: a worker that left lost questions that others would have answered.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Sequence
from typing import Any

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

log = structlog.get_logger()

DRAIN_SECONDS = 2.0
"""For the server to confirm that it sends no more, and for what it sent to be read."""


class Feed:
    """Hands what comes on one subject to a subscriber, at most `at_once` at a time; the others wait in line."""

    def __init__(self, subscriber: Any, queue: str, at_once: int) -> None:
        self._subscriber, self._queue = subscriber, queue
        self._free = asyncio.Semaphore(at_once)
        self._running: set[asyncio.Task[Any]] = set()
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Begin to hear."""
        self._subscription = await self._subscriber.connection.subscribe(
            self._subscriber.subject.broker_address, queue=self._queue, cb=self._hear
        )

    async def stop(self) -> None:
        """Tell the server to send no more, then let what it has sent be answered. Harmless the second time."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await _drain(subscription)
        if self._running:
            await asyncio.wait(self._running)

    async def _hear(self, message: Msg) -> None:
        await self._free.acquire()
        task = asyncio.create_task(self._subscriber.consume(message))
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._free.release()


async def _drain(subscription: Subscription) -> None:
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await subscription.drain()  # type: ignore[no-untyped-call]
    except (nats.errors.Error, TimeoutError) as error:
        # The bus is away: nothing comes from it, and nobody hears an answer.
        log.info("drain_cut_short", error=type(error).__name__)


def feed_all(subscribers: Sequence[Any], queue: str, at_once: int) -> None:
    """Let each subscriber be fed. The first that is stopped stops all: together they take no longer than one."""
    feeds = [Feed(subscriber, queue, at_once) for subscriber in subscribers]
    for subscriber, feed in zip(subscribers, feeds, strict=True):
        _put_in(subscriber, feed, feeds)


def _put_in(subscriber: Any, feed: Feed, feeds: Sequence[Feed]) -> None:
    stop_of_faststream = subscriber.stop

    async def create_subscription(self: Any) -> None:
        await feed.start()

    async def stop(self: Any) -> None:
        await asyncio.gather(*(each.stop() for each in feeds))
        await stop_of_faststream()

    subscriber._create_subscription = types.MethodType(create_subscription, subscriber)
    subscriber.stop = types.MethodType(stop, subscriber)
