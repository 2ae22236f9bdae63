"""Questions and answers over a real bus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ops.runtime.bus import Bus, BusUnavailable
from schemas import codec, subjects
from schemas.faults import StorageUnavailable
from schemas.ids import new_id
from schemas.records import Answer, GetSession, Ping, Pong
from tests.workers.records.conftest import Asker, started, stop
from workers.stage import StageBroker
from workers.storage.database import Database


def counted(question: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("cozy_record_answers_total", {"question": question, "outcome": outcome}) or 0.0


async def test_a_question_is_answered(asker: Asker) -> None:
    assert (await asker.value(Ping(), Pong)).database_ms > 0


async def test_answers_are_counted_by_outcome(asker: Asker) -> None:
    before = counted("Ping", "answered"), counted("GetSession", "RESOURCE_NOT_FOUND")
    await asker.answer(Ping())
    await asker.answer(GetSession(user_id=new_id(), session_id=new_id()))
    assert (counted("Ping", "answered"), counted("GetSession", "RESOURCE_NOT_FOUND")) == (before[0] + 1, before[1] + 1)


async def test_a_question_nobody_can_read_is_answered_too(asker: Asker) -> None:
    with capture_logs() as logs:
        data = await asker.bus.ask(subjects.record_query("GetSession"), b"\xc1", timeout=5)
    fault = codec.decode(data, Answer).fault
    assert fault is not None
    assert fault.code == "ENGINE_INTERNAL"
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["question_failed"]


Door = Callable[[Callable[[Any], Awaitable[Any]]], Awaitable[StageBroker]]


@pytest.fixture
def door(bus: Bus) -> Door:
    """A worker whose only question is Ping, answered by the test."""

    async def opened(handle: Callable[[Any], Awaitable[Any]]) -> StageBroker:
        return await started(bus, {Ping: handle})

    return opened


async def test_one_slow_answer_does_not_hold_up_the_others(door: Door, nats_url: str) -> None:
    release, turn = asyncio.Event(), iter((True, False))

    async def slow_once(asked: Ping) -> Pong:
        if next(turn):
            await release.wait()
        return Pong(database_ms=1)

    broker, asker = await door(slow_once), Asker(await Bus.connect(nats_url, "asker"))
    slow = asyncio.create_task(asker.value(Ping(), Pong))
    await asker.bus.flush()
    assert await asker.value(Ping(), Pong) == Pong(database_ms=1)
    assert not slow.done()
    release.set()
    await slow
    await stop(broker)
    await asker.bus.close()


async def test_an_answer_too_large_for_the_bus_is_a_fault_and_not_a_silence(door: Door, nats_url: str) -> None:
    async def talkative(asked: Ping) -> str:
        return "x" * (9 << 20)

    broker, asker = await door(talkative), Asker(await Bus.connect(nats_url, "asker"))
    assert (await asker.fault(Ping())).code == "ENGINE_INTERNAL"
    await stop(broker)
    await asker.bus.close()


@pytest.mark.parametrize("at_once", [1, 20])
async def test_a_worker_that_stops_answers_what_it_has_heard_and_leaves_the_rest_to_others(
    bus: Bus, nats_url: str, at_once: int
) -> None:
    heard, release = asyncio.Event(), asyncio.Event()

    async def held(asked: Ping) -> Pong:
        heard.set()
        await release.wait()
        return Pong(database_ms=1)

    broker, asker = await started(bus, {Ping: held}, at_once), Asker(await Bus.connect(nats_url, "asker"))
    questions = [asyncio.create_task(asker.value(Ping(), Pong)) for _ in range(20)]
    await heard.wait()
    stopping = asyncio.create_task(stop(broker))
    await until_nobody_listens(asker)
    release.set()
    assert await asyncio.gather(*questions) == [Pong(database_ms=1)] * 20
    await stopping
    await asker.bus.close()


async def until_nobody_listens(asker: Asker) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await asker.bus.ask(subjects.record_query("Ping"), codec.encode(Ping()), timeout=0.1)
            except BusUnavailable as error:
                if str(error) == "NoRespondersError":
                    return


async def test_an_answer_the_bus_does_not_take_is_logged_and_counted(bus: Bus, nats_url: str) -> None:
    own = await Bus.connect(nats_url, "leaving")
    asked_once = asyncio.Event()

    async def leave_first(asked: Ping) -> Pong:
        await own.close()
        asked_once.set()
        return Pong(database_ms=1)

    await started(own, {Ping: leave_first})
    before = REGISTRY.get_sample_value("cozy_record_answers_not_sent_total") or 0.0
    with capture_logs() as logs, pytest.raises(BusUnavailable):
        await bus.ask(subjects.record_query("Ping"), codec.encode(Ping()), timeout=0.5)
    assert asked_once.is_set()
    assert "answer_not_sent" in [line["event"] for line in logs]
    assert REGISTRY.get_sample_value("cozy_record_answers_not_sent_total") == before + 1


async def test_a_database_that_is_away_is_told_in_time(door: Door, nats_url: str) -> None:
    async def never(asked: Ping) -> Pong:
        await asyncio.Event().wait()
        raise AssertionError

    broker, asker = await door(never), Asker(await Bus.connect(nats_url, "asker"))
    async with asyncio.timeout(2.5):
        assert await asker.fault(Ping()) == StorageUnavailable().record
    await stop(broker)
    await asker.bus.close()


async def test_connections_that_the_database_dropped_are_replaced_before_anybody_notices(
    asker: Asker, database: Database, database_url: str
) -> None:
    await asyncio.gather(*(asker.value(Ping(), Pong) for _ in range(20)))
    elsewhere = await Database.open(database_url, size=1, name="elsewhere")
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    dropped = await elsewhere.run(f"SELECT pg_terminate_backend(pid) {others}", {})
    assert dropped > 1
    assert (await asker.value(Ping(), Pong)).database_ms > 0
    await elsewhere.close()
