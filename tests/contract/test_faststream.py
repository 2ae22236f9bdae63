"""What we rely on in FastStream 0.7 and it does not promise: two methods of a subscriber, and what becomes of a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.nats import JStream, NatsMessage, PullSub
from nats.aio.msg import Msg

from ops.runtime.bus import Bus
from schemas.streams import MEMORY_WRITEBACK, TURNS
from tests.workers.jobs import STAGE, post, standing, take, turn_of
from workers.consumer import PullLoop, fed_by_credits
from workers.stage import StageBroker, _as_it_is

Handler = Callable[[Any], Awaitable[Any]]


@pytest.fixture
async def own_bus(nats_url: str, bus: Bus) -> AsyncIterator[Bus]:
    """A worker's own connection."""
    own = await Bus.connect(nats_url, "contract")
    yield own
    await own.close()


@pytest.fixture
async def broker(own_bus: Bus) -> StageBroker:
    return StageBroker(own_bus)


def subscriber_of(broker: StageBroker, handle: Handler) -> Any:
    """A subscriber as a stage makes it, not yet fed by credits."""
    subscriber = broker.subscriber(
        MEMORY_WRITEBACK.filter_subject,
        stream=JStream(TURNS.name, declare=False),
        durable=STAGE,
        pull_sub=PullSub(batch_size=1),
        ack_policy=AckPolicy.MANUAL,
        decoder=_as_it_is,
    )
    subscriber(handle)
    return subscriber


@pytest.fixture
async def fed(broker: StageBroker, own_bus: Bus) -> AsyncIterator[Callable[[Handler], PullLoop]]:
    """Subscribers fed by credits, two slots each."""
    subscribers = []

    def made(handle: Handler) -> PullLoop:
        subscribers.append(subscriber_of(broker, handle))
        return fed_by_credits(subscribers[-1], own_bus, TURNS.name, STAGE, slots=2, alive=1, grace=0)

    yield made
    for subscriber in subscribers:
        await subscriber.stop()


class Heard:
    """A handler that keeps what it is given."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[Any] = asyncio.Queue()

    async def handle(self, message: Any) -> str:
        self.given.put_nowait(message)
        return "an answer nobody asked for"

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            return await self.given.get()


def test_the_versions_are_those_these_tests_speak_of() -> None:
    assert version("faststream").startswith("0.7.")
    assert version("nats-py").startswith("2.16.")


async def test_a_broker_uses_the_connection_it_is_given_and_leaves_it_open(broker: StageBroker, own_bus: Bus) -> None:
    subscriber = subscriber_of(broker, Heard().handle)
    await broker.start()
    assert subscriber.connection is own_bus.client
    await subscriber.stop()
    assert own_bus.connected


async def test_starting_and_stopping_go_through_the_two_methods_we_replace(
    broker: StageBroker, own_bus: Bus, fed: Callable[[Handler], PullLoop]
) -> None:
    loop = fed(Heard().handle)
    subscriber = broker.subscribers[0]
    await broker.start()
    assert loop._keeping
    assert subscriber.running
    await subscriber.stop()
    assert loop._stopping
    assert not subscriber.running


async def test_a_handler_is_given_what_the_decoder_returns(
    broker: StageBroker, fed: Callable[[Handler], PullLoop], bus: Bus
) -> None:
    heard = Heard()
    fed(heard.handle)
    await broker.start()
    await post(bus, "a")
    message = await heard.next()
    assert type(message) is Msg
    assert turn_of(message) == "a"


async def test_messages_that_wait_when_a_subscriber_starts_are_not_missed(
    broker: StageBroker, fed: Callable[[Handler], PullLoop], bus: Bus
) -> None:
    """`consume` throws a message away while the subscriber is not running: ours must not come that early."""
    heard = Heard()
    fed(heard.handle)
    await post(bus, "a", "b", "c")
    await broker.start()
    assert [turn_of(await heard.next()) for _ in range(2)] == ["a", "b"]


async def test_what_a_handler_returns_goes_nowhere_and_settles_nothing(
    broker: StageBroker, fed: Callable[[Handler], PullLoop], bus: Bus
) -> None:
    said: asyncio.Queue[bytes] = asyncio.Queue()
    listener = await bus.listen("$JS.ACK.>", lambda _, data: said.put_nowait(data))
    heard = Heard()
    fed(heard.handle)
    await broker.start()
    await post(bus, "a")
    await heard.next()
    assert await standing(bus) == (0, 1)
    await listener.close()
    assert said.empty()


@pytest.mark.parametrize("error", [LookupError(), ExceptionGroup("two", [LookupError()])], ids=["one", "group"])
async def test_a_handler_that_raises_loses_no_job_and_the_next_one_is_heard(
    broker: StageBroker, fed: Callable[[Handler], PullLoop], bus: Bus, error: Exception
) -> None:
    heard = Heard()

    async def handle(message: Any) -> None:
        await heard.handle(message)
        if turn_of(message) == "a":
            raise error

    fed(handle)
    await broker.start()
    await post(bus, "a", "b")
    assert {turn_of(await heard.next()), turn_of(await heard.next())} == {"a", "b"}
    assert await standing(bus) == (0, 2)


async def test_a_handler_that_is_cancelled_hears_of_it_and_its_job_stays(
    broker: StageBroker, own_bus: Bus, bus: Bus
) -> None:
    cancelled, begun = asyncio.Event(), asyncio.Event()

    async def handle(message: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    subscriber = subscriber_of(broker, handle)
    fed_by_credits(subscriber, own_bus, TURNS.name, STAGE, slots=1, alive=1, grace=0)
    await broker.start()
    await post(bus, "a")
    await begun.wait()
    await subscriber.stop()
    assert cancelled.is_set()
    assert await standing(bus) == (0, 1)


async def test_a_message_for_a_subscriber_that_does_not_run_is_thrown_away(broker: StageBroker, bus: Bus) -> None:
    heard = Heard()
    subscriber = subscriber_of(broker, heard.handle)
    await post(bus, "a")
    message = await take(bus)
    assert await subscriber.consume(message) is None
    assert heard.given.empty()


async def test_a_decoder_sees_the_message_of_nats_py(bus: Bus) -> None:
    raw = Msg(_client=bus.client, subject="s", data=b"x")
    assert await _as_it_is(NatsMessage(raw_message=raw, body=b"x")) is raw
