"""Questions to the records worker: answered, refused, or told in time that nobody is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.records_client import NOTHING, Records
from ops.local.embedded_nats import EmbeddedNats
from ops.runtime.bus import Bus, BusUnavailable
from schemas.faults import InvalidValue, NotFound, StorageUnavailable
from schemas.records import Caller, DeleteSession, FindCaller, GetSession
from tests.gateway.conftest import USER, records_peer
from tests.gateway.peers import RecordsPeer

ASKED = GetSession(user_id="u", session_id="s")


@pytest.fixture
async def bus(nats: EmbeddedNats) -> AsyncIterator[Bus]:
    bus = await Bus.connect(nats.url, "test")
    yield bus
    await bus.close()


async def test_an_answer_is_of_the_kind_that_was_asked_for(bus: Bus, records: RecordsPeer) -> None:
    records.answers[FindCaller] = lambda _: USER
    assert await Records(lambda: bus).ask(FindCaller(key_hash="h"), Caller) == USER


async def test_done_is_an_answer_too(bus: Bus, records: RecordsPeer) -> None:
    records.answers[DeleteSession] = lambda _: None
    done: object = await Records(lambda: bus).ask(DeleteSession(user_id="u", session_id="s"), NOTHING)
    assert done is None


async def test_a_fault_comes_as_the_worker_meant_it(bus: Bus, records: RecordsPeer) -> None:
    def refuse(_: Any) -> None:
        raise InvalidValue("No.", param="cursor", details={"why": "because"})

    records.answers[GetSession] = refuse
    with pytest.raises(InvalidValue) as caught:
        await Records(lambda: bus).ask(ASKED, Caller)
    assert caught.value.record == InvalidValue("No.", param="cursor", details={"why": "because"}).record


async def test_nobody_there_is_said_after_the_patience_and_no_later(bus: Bus) -> None:
    began = time.monotonic()
    with pytest.raises(StorageUnavailable):
        await Records(lambda: bus, patience=0.5).ask(ASKED, Caller)
    assert 0.3 < time.monotonic() - began < 1.5


async def test_a_worker_that_does_not_answer_is_waited_for_no_longer(bus: Bus, records: RecordsPeer) -> None:
    records.silent = True
    began = time.monotonic()
    with pytest.raises(StorageUnavailable):
        await Records(lambda: bus, patience=0.5).ask(ASKED, Caller)
    assert time.monotonic() - began < 1.5
    assert records.asked["GetSession"] == 1


async def test_without_a_bus_the_answer_is_the_same() -> None:
    with pytest.raises(StorageUnavailable):
        await Records(lambda: None, patience=0.2).ask(ASKED, Caller)


async def test_a_worker_that_comes_in_time_is_waited_for(bus: Bus, nats: EmbeddedNats) -> None:
    asking = asyncio.create_task(Records(lambda: bus, patience=5).ask(ASKED, NOTHING))
    peer = records_peer()

    def refuse(_: Any) -> None:
        raise NotFound

    peer.answers[GetSession] = refuse
    await peer.open(nats.url)
    with pytest.raises(NotFound):
        await asking
    await peer.close()


async def test_asked_once_it_tells_who_is_away_from_what_is_refused(bus: Bus) -> None:
    with pytest.raises(BusUnavailable):
        await Records(lambda: bus).ask_once(ASKED, Caller, 0.5)
