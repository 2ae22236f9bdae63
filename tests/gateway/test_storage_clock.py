"""PostgreSQL's time as a gateway knows it: whatever its own clock says, and rather too early than too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gateway import storage_clock
from gateway.records_client import Records
from gateway.storage_clock import StorageClock
from ops.local.embedded_nats import EmbeddedNats
from ops.runtime.bus import Bus
from schemas.records import Ping, Pong
from tests.gateway.peers import RecordsPeer


@pytest.fixture
async def clock(nats: EmbeddedNats) -> AsyncIterator[StorageClock]:
    bus = await Bus.connect(nats.url, "test")
    yield StorageClock(Records(lambda: bus))
    await bus.close()


def goes(records: RecordsPeer, ahead: float) -> None:
    """PostgreSQL's clock is so many seconds ahead of ours."""
    records.answers[Ping] = lambda _: Pong(database_ms=1, database_time=time.time() + ahead)


@pytest.mark.parametrize("ahead", [-600.0, 0.0, 600.0])
async def test_a_moment_is_told_in_its_time_and_not_too_late(
    clock: StorageClock, records: RecordsPeer, ahead: float
) -> None:
    goes(records, ahead)
    await clock.look()
    moment = await clock.moment(10)
    now = time.time()
    assert now + ahead + 10 - 0.5 < moment <= now + ahead + 10


async def test_time_goes_on_between_two_looks(clock: StorageClock, records: RecordsPeer) -> None:
    await clock.look()
    first = await clock.moment(10)
    await asyncio.sleep(0.05)
    assert 0.05 <= await clock.moment(10) - first < 0.5
    assert records.asked["Ping"] == 1


async def test_a_clock_that_was_set_is_seen_at_the_next_look(
    clock: StorageClock, records: RecordsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_clock, "ASK_EVERY", 0.01)
    running = asyncio.create_task(clock.run())
    try:
        await clock.moment(0)
        goes(records, -3600)
        async with asyncio.timeout(5):
            while await clock.moment(0) > time.time() - 1800:  # noqa: ASYNC110 - a look has no event of its own
                await asyncio.sleep(0.01)
    finally:
        running.cancel()


async def test_while_nobody_answers_the_last_look_counts(
    clock: StorageClock, records: RecordsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_clock, "PATIENCE", 0.05)
    goes(records, -600)
    await clock.look()
    await records.close()
    running = asyncio.create_task(clock.run())
    await asyncio.sleep(0.2)
    running.cancel()
    assert await clock.moment(0) < time.time() - 500


async def test_the_version_before_says_no_time_and_ours_has_to_do(clock: StorageClock, records: RecordsPeer) -> None:
    records.answers[Ping] = lambda _: Pong(database_ms=1)
    assert abs(await clock.moment(10) - time.time() - 10) < 1
