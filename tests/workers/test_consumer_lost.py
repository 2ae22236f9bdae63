"""What the loop does while it is stopped for long, and when its consumer is gone and comes again."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from ops.runtime import topology
from ops.runtime.bus import Bus
from schemas.streams import TURNS
from tests.workers.jobs import STAGE, Hands, loop_on, post, turn_of
from workers import consumer

SLOTS = 32


async def test_a_loop_that_waits_for_its_last_work_does_not_miss_the_server(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "HEARTBEAT", 0.02)
    hands = Hands()
    loop = loop_on(bus, hands.take, 1)
    await loop.start()
    await post(bus, "a")
    await hands.until(1)
    with capture_logs() as logs:
        assert await loop.stop(grace=0.5) == 1
    assert [line for line in logs if line["event"] == "pull_lost"] == []


async def test_a_consumer_that_was_made_again_is_asked_at_once(bus: Bus) -> None:
    """However many requests were under way when it went."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def take(message: Msg) -> None:
        heard.put_nowait(turn_of(message))
        await message.ack()

    loop = loop_on(bus, take, SLOTS)
    await loop.start()
    for each in range(3 * SLOTS):
        await post(bus, str(each))
    async with asyncio.timeout(10):
        for _ in range(3 * SLOTS):
            await heard.get()
    await bus.client.jetstream().delete_consumer(TURNS.name, STAGE)
    await asyncio.sleep(consumer.REFUSED_PAUSE / 2)
    assert STAGE in await topology.restore(bus, lease=10)
    await post(bus, "after")
    async with asyncio.timeout(4 * consumer.REFUSED_PAUSE):
        while await heard.get() != "after":  # what was not yet acknowledged comes again
            pass
    await loop.stop(grace=1)


async def test_a_request_outlives_no_frozen_worker(bus: Bus) -> None:
    """What is asked for is sent, whoever is there to take it: a frozen worker's request ends before its lease does."""
    asked: asyncio.Queue[bytes] = asyncio.Queue()
    requests = f"$JS.API.CONSUMER.MSG.NEXT.{TURNS.name}.{STAGE}"
    listener = await bus.listen(requests, lambda _, data: asked.put_nowait(data))
    await bus.flush()
    loop = loop_on(bus, Hands().take, 1, alive=1.0)
    await loop.start()
    async with asyncio.timeout(10):
        request = msgspec.json.decode(await asked.get())
    assert request["expires"] == 2e9
    await loop.stop(0)
    await listener.close()


async def test_many_refusals_at_once_do_not_keep_a_message_waiting(bus: Bus) -> None:
    hands = Hands()
    loop = loop_on(bus, hands.take, 1)
    await loop.start()
    for _ in range(20):
        await bus.client.publish(loop._inbox, headers={"Status": "409", "Description": "Consumer Deleted"})
    await post(bus, "a")
    await hands.until(1, seconds=10 * consumer.REFUSED_PAUSE)
    hands.let_go.set()
    await loop.stop(grace=1)
