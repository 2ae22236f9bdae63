"""A turn is asked for until there is a verdict: each question has its own, and its last moment is PostgreSQL's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from nats.aio.msg import Msg

from gateway import admission
from gateway.admission import Admission
from gateway.records_client import Records
from gateway.storage_clock import StorageClock
from ops.local.embedded_nats import EmbeddedNats
from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.faults import BodyTooLarge, EngineOverloaded, Fault, IdempotencyMismatch, StorageUnavailable
from schemas.ids import new_id
from schemas.openai import ChatRequest, UserMessage
from schemas.records import Ping, Pong
from schemas.turns import Accepted, Refused, TurnRequested, Verdict
from tests.gateway.peers import RecordsPeer

FULL = b'{"error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}, "stream": "TURNS_v1"}'
STORED = b'{"stream": "TURNS_v1", "seq": 7}'


class Worker:
    """Where the questions arrive. What is answered, the test says."""

    def __init__(self, bus: Bus) -> None:
        self.bus, self.came = bus, asyncio.Queue[Msg]()

    async def next(self) -> tuple[Msg, TurnRequested]:
        async with asyncio.timeout(5):
            message = await self.came.get()
        return message, codec.decode(message.data, TurnRequested)

    async def tell(self, turn: TurnRequested, verdict: Verdict) -> None:
        await self.bus.publish(turn.verdict_subject, codec.encode(verdict))


@pytest.fixture
async def bus(nats: EmbeddedNats) -> AsyncIterator[Bus]:
    bus = await Bus.connect(nats.url, "test")
    yield bus
    await bus.close()


@pytest.fixture
async def worker(bus: Bus) -> Worker:
    worker = Worker(bus)
    await bus.client.subscribe(subjects.every_shard(subjects.TURN_REQUESTED), cb=worker.came.put)
    await bus.flush()
    return worker


@pytest.fixture
async def asking(bus: Bus, records: RecordsPeer, monkeypatch: pytest.MonkeyPatch) -> Admission:
    monkeypatch.setattr(admission, "AGAIN_AFTER", 0.1)
    monkeypatch.setattr(admission, "LAST_MOMENT", 0.3)
    made = Admission(bus, new_id(), 1, StorageClock(Records(lambda: bus)))
    await made.open()
    await bus.flush()
    return made


def turn() -> TurnRequested:
    request = ChatRequest(model="m", messages=[UserMessage(content="Hi")])
    return TurnRequested(turn_id=new_id(), user_id=new_id(), request_id="the client's own", request=request,
                         fingerprint="f", verdict_subject="", asked_at=0, expires_at=0)  # fmt: skip


def accepted(asked: TurnRequested) -> Accepted:
    return Accepted(turn_id=asked.turn_id, session_id=new_id(), personality_id=None, shard=0, created=1)


async def fault_of(asked: asyncio.Task[Accepted]) -> type[Fault]:
    with pytest.raises(Fault) as raised:
        await asked
    return type(raised.value)


async def test_two_questions_for_one_turn_get_each_its_own_verdict(asking: Admission, worker: Worker) -> None:
    wanted = turn()
    both = [asyncio.create_task(asking.ask(wanted, 5)) for _ in range(2)]
    (_, first), (_, second) = [await worker.next() for _ in range(2)]
    assert first.verdict_subject != second.verdict_subject
    await worker.tell(second, Refused(turn_id=wanted.turn_id, fault=IdempotencyMismatch().record))
    assert await fault_of(both[1]) is IdempotencyMismatch
    assert not both[0].done()
    await worker.tell(first, accepted(first))
    assert (await both[0]).turn_id == wanted.turn_id


async def test_every_try_has_a_message_id_that_was_never_there_before(asking: Admission, worker: Worker) -> None:
    """Also where client and key are the same: JetStream swallows an id that it has seen."""
    wanted = turn()
    for _ in range(2):
        asked = asyncio.create_task(asking.ask(wanted, 5))
        ids = []
        for _ in range(3):
            message, again = await worker.next()
            assert message.headers
            ids.append(message.headers["Nats-Msg-Id"])
        await worker.tell(again, accepted(again))
        await asked
        assert len({*ids}) == 3
        assert wanted.turn_id not in "".join(ids)


async def test_the_last_moment_is_told_in_postgresql_s_time_and_never_after_the_gateway_gives_up(
    asking: Admission, worker: Worker, records: RecordsPeer
) -> None:
    there = time.time() - 3600
    records.answers[Ping] = lambda _: Pong(database_ms=1, database_time=there)
    began = time.monotonic()
    asked = asyncio.create_task(asking.ask(turn(), 0.2))
    _, came = await worker.next()
    assert there < came.expires_at < there + 0.2 + (time.monotonic() - began)
    assert await fault_of(asked) is StorageUnavailable
    assert time.monotonic() - began > 0.5


async def test_a_verdict_on_the_way_at_the_last_moment_is_heard(asking: Admission, worker: Worker) -> None:
    asked = asyncio.create_task(asking.ask(turn(), 0.05))
    _, came = await worker.next()
    await asyncio.wait((asked,), timeout=0.15)
    await worker.tell(came, accepted(came))
    assert (await asked).turn_id == came.turn_id


async def test_a_stream_that_is_full_is_said_at_once(asking: Admission, worker: Worker, bus: Bus) -> None:
    asked = asyncio.create_task(asking.ask(turn(), 5))
    message, _ = await worker.next()
    await bus.publish(message.reply, FULL)
    assert await fault_of(asked) is EngineOverloaded
    assert worker.came.empty()


@pytest.mark.parametrize("receipt", [STORED, None])
async def test_a_try_that_may_be_stored_outweighs_a_full_stream(
    asking: Admission, worker: Worker, bus: Bus, receipt: bytes | None
) -> None:
    asked = asyncio.create_task(asking.ask(turn(), 5))
    first, came = await worker.next()
    if receipt:
        await bus.publish(first.reply, receipt)
    again, _ = await worker.next()
    await bus.publish(again.reply, FULL)
    await worker.next()
    assert not asked.done()
    await worker.tell(came, accepted(came))
    assert (await asked).turn_id == came.turn_id


async def test_without_a_look_at_postgresql_s_clock_nothing_is_asked(
    asking: Admission, worker: Worker, records: RecordsPeer
) -> None:
    await records.close()
    asking._clock._records._patience = 0.3
    with pytest.raises(StorageUnavailable):
        await asking.ask(turn(), 5)
    assert worker.came.empty()


async def test_what_the_bus_cannot_carry_is_too_large(asking: Admission, bus: Bus) -> None:
    asked = msgspec.structs.replace(turn(), fingerprint="x" * (bus.client.max_payload + 1))
    with pytest.raises(BodyTooLarge):
        await asking.ask(asked, 5)
