"""Never more messages in hand than slots, whatever happens to the connection, and nothing left behind at the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from ops.local.embedded_nats import EmbeddedNats
from ops.runtime import topology
from ops.runtime.bus import Bus
from schemas.streams import MEMORY_WRITEBACK, TURNS
from tests.conftest import LEASE_SECONDS
from tests.outages import cut_off
from tests.workers.jobs import STAGE, Hands, loop_on, post, standing, turn_of
from workers import consumer
from workers.consumer import PullLoop

Starts = Callable[..., Awaitable[PullLoop]]


@pytest.fixture
async def own_bus(nats_url: str, bus: Bus) -> AsyncIterator[Bus]:
    """A worker's own connection."""
    own = await Bus.connect(nats_url, "worker")
    yield own
    await own.close()


@pytest.fixture
async def starts(own_bus: Bus) -> AsyncIterator[Starts]:
    """Loops that end with the test."""
    loops: list[PullLoop] = []

    async def start(handle: Callable[[Msg], Awaitable[Any]], slots: int, **changes: Any) -> PullLoop:
        loops.append(loop_on(changes.pop("on", own_bus), handle, slots, **changes))
        await loops[-1].start()
        return loops[-1]

    yield start
    for loop in loops:
        await loop.stop(0)


@pytest.fixture
async def hands() -> Hands:
    return Hands()


@pytest.mark.parametrize("slots", [1, 3])
async def test_as_many_messages_are_taken_as_there_are_slots(
    starts: Starts, hands: Hands, bus: Bus, slots: int
) -> None:
    await post(bus, *map(str, range(10)))
    loop = await starts(hands.take, slots)
    await hands.until(slots)
    assert await standing(bus) == (10 - slots, slots)
    assert loop.busy == slots
    hands.let_go.set()
    await hands.until(10)
    assert hands.most == slots
    assert hands.taken == [str(i) for i in range(10)]


async def test_a_slot_that_frees_up_is_filled_while_the_others_work(starts: Starts, bus: Bus) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()
    slow = asyncio.Event()

    async def handle(message: Msg) -> None:
        seen.put_nowait(turn_of(message))
        if turn_of(message) == "slow":
            await slow.wait()
        await message.ack()

    await post(bus, "slow", *map(str, range(20)))
    await starts(handle, 2)
    async with asyncio.timeout(10):
        assert {await seen.get() for _ in range(21)} == {"slow", *map(str, range(20))}
    slow.set()


async def test_what_comes_while_nobody_waits_is_taken_at_once(starts: Starts, hands: Hands, bus: Bus) -> None:
    await starts(hands.take, 2)
    await post(bus, "a")
    await hands.until(1)


async def test_a_handler_that_breaks_costs_no_slot(starts: Starts, bus: Bus) -> None:
    tried: asyncio.Queue[str] = asyncio.Queue()

    async def break_off(message: Msg) -> None:
        tried.put_nowait(turn_of(message))
        await message.ack()
        raise LookupError

    await starts(break_off, 1)
    await post(bus, "a", "b", "c")
    async with asyncio.timeout(10):
        assert [await tried.get() for _ in range(3)] == ["a", "b", "c"]


async def test_after_a_lost_connection_there_are_still_no_more_than_the_slots(
    starts: Starts, hands: Hands, bus: Bus, own_bus: Bus
) -> None:
    """The server may still hold the request of before: asking anew must not count twice."""
    await starts(hands.take, 2)
    for _ in range(3):
        await cut_off(own_bus)
    await post(bus, *map(str, range(12)))
    await hands.until(2)
    assert await standing(bus) == (10, 2)
    hands.let_go.set()
    await hands.until(12)
    assert hands.most == 2


async def test_a_connection_lost_with_messages_in_hand_does_not_add_to_them(
    starts: Starts, hands: Hands, bus: Bus, own_bus: Bus
) -> None:
    await post(bus, *map(str, range(12)))
    loop = await starts(hands.take, 3)
    await hands.until(3)
    await cut_off(own_bus)
    assert await standing(bus) == (9, 3)
    assert loop.busy == 3
    hands.let_go.set()
    await hands.until(12)
    assert hands.most == 3


async def test_a_server_that_was_killed_and_is_back_is_asked_again(hands: Hands, tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path)
    own = await Bus.connect(await server.start(), "worker")
    await topology.ensure(own, lease=LEASE_SECONDS)
    loop = loop_on(own, hands.take, 2)
    await loop.start()
    await post(own, "before")
    await hands.until(1)
    await server.kill()
    await server.start()
    await post(own, "after")
    await hands.until(2)
    hands.let_go.set()
    await loop.stop(5)
    await own.close()
    await server.stop()


async def test_a_request_that_ran_out_is_made_again(
    starts: Starts, hands: Hands, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "EXPIRES", 0.25)
    monkeypatch.setattr(consumer, "HEARTBEAT", 0.1)
    asked: asyncio.Queue[bytes] = asyncio.Queue()
    requests = f"$JS.API.CONSUMER.MSG.NEXT.{TURNS.name}.{STAGE}"
    listener = await bus.listen(requests, lambda _, data: asked.put_nowait(data))
    await starts(hands.take, 2)
    async with asyncio.timeout(10):
        for _ in range(3):
            await asked.get()
    await listener.close()
    await post(bus, "a", "b", "c")
    await hands.until(2)
    assert await standing(bus) == (1, 2)


async def test_a_consumer_that_was_made_anew_is_asked_again(
    starts: Starts, hands: Hands, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "REFUSED_PAUSE", 0.01)
    # A request that reaches the server in the moment of the deletion is answered by nobody: the watch finds out.
    monkeypatch.setattr(consumer, "HEARTBEAT", 0.2)
    await starts(hands.take, 1)
    jetstream = bus.client.jetstream()
    await jetstream.delete_consumer(TURNS.name, STAGE)
    await jetstream.add_consumer(TURNS.name, topology.consumer_config(MEMORY_WRITEBACK, LEASE_SECONDS))
    await post(bus, "a")
    await hands.until(1)


async def test_a_request_that_was_lost_without_a_word_is_made_again(
    hands: Hands, bus: Bus, own_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "HEARTBEAT", 0.1)
    loop = loop_on(own_bus, hands.take, 1)
    # As if the server had lost the first request: it is asked on a subject where nobody hears.
    right, loop._next = loop._next, "nowhere"
    await loop.start()
    loop._next = right
    await post(bus, "a")
    await hands.until(1)
    await loop.stop(0)


@pytest.fixture
async def short_lease(bus: Bus) -> AsyncIterator[None]:
    """The server gives a message to another after 0.3 s without a sign of life."""
    jetstream = bus.client.jetstream()
    await jetstream.add_consumer(TURNS.name, topology.consumer_config(MEMORY_WRITEBACK, 0.3))
    yield
    await jetstream.add_consumer(TURNS.name, topology.consumer_config(MEMORY_WRITEBACK, LEASE_SECONDS))


@pytest.mark.usefixtures("short_lease")
async def test_what_is_worked_on_for_long_is_not_given_to_another(hands: Hands, bus: Bus, starts: Starts) -> None:
    signs: asyncio.Queue[bytes] = asyncio.Queue()
    listener = await bus.listen(f"$JS.ACK.{TURNS.name}.{STAGE}.>", lambda _, data: signs.put_nowait(data))
    await starts(hands.take, 4, alive=0.05)
    await post(bus, "a")
    async with asyncio.timeout(10):
        assert {await signs.get() for _ in range(12)} == {b"+WPI"}
    assert hands.taken == ["a"]
    hands.let_go.set()
    async with asyncio.timeout(10):
        while await signs.get() == b"+WPI":
            pass
    await listener.close()
    assert await standing(bus) == (0, 0)


async def test_stopping_lets_what_is_in_hand_end_and_takes_no_more(hands: Hands, bus: Bus, own_bus: Bus) -> None:
    await post(bus, *map(str, range(6)))
    loop = loop_on(own_bus, hands.take, 2)
    await loop.start()
    await hands.until(2)
    stopping = asyncio.create_task(loop.stop(10))
    await asyncio.sleep(0)
    hands.let_go.set()
    assert await stopping == 0
    assert (len(hands.taken), loop.busy) == (2, 0)
    await own_bus.flush()
    assert await standing(bus) == (4, 0)


async def test_what_does_not_end_in_time_is_cancelled_and_counted(hands: Hands, bus: Bus, own_bus: Bus) -> None:
    await post(bus, "a", "b")
    loop = loop_on(own_bus, hands.take, 2)
    await loop.start()
    await hands.until(2)
    assert await loop.stop(0.01) == 2
    assert loop.busy == 0


async def test_nothing_stays_in_the_hands_of_who_stopped_in_the_middle_of_a_flood(bus: Bus, own_bus: Bus) -> None:
    done: set[str] = set()
    begun = asyncio.Event()

    async def handle(message: Msg) -> None:
        done.add(turn_of(message))
        await message.ack()
        begun.set()

    everything = {str(i) for i in range(400)}
    await post(bus, *everything)
    loop = loop_on(own_bus, handle, 64)
    await loop.start()
    await begun.wait()
    await loop.stop(5)
    assert len(done) < 400
    # Long before a lease could end, all the others can be had.
    left = Hands()
    left.let_go.set()
    after = loop_on(own_bus, left.take, 64)
    await after.start()
    await left.until(400 - len(done), seconds=LEASE_SECONDS / 2)
    await after.stop(5)
    assert done | set(left.taken) == everything


async def test_what_was_on_its_way_to_who_stopped_is_given_back_at_once(nats_url: str, bus: Bus, own_bus: Bus) -> None:
    loop = loop_on(own_bus, Hands().take, 8)
    await loop.start()
    await own_bus.flush()

    async def post_and_see_it_sent() -> None:
        elsewhere = await Bus.connect(nats_url, "elsewhere")
        await post(elsewhere, *map(str, range(8)))
        async with asyncio.timeout(10):
            while await standing(elsewhere) != (0, 8):
                pass
        await elsewhere.close()

    # This thread is kept from reading meanwhile: the messages wait in its socket when the loop is told to stop.
    poster = threading.Thread(target=asyncio.run, args=[post_and_see_it_sent()])
    poster.start()
    poster.join()
    await loop.stop(5)
    left = Hands()
    after = loop_on(own_bus, left.take, 8)
    await after.start()
    await left.until(8, seconds=LEASE_SECONDS / 2)
    left.let_go.set()
    await after.stop(5)
