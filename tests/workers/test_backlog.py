"""What waits for a stage is counted."""

from __future__ import annotations

import asyncio

from prometheus_client import REGISTRY

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.streams import GENERATION, MEMORY_WRITEBACK, ConsumerSpec
from schemas.turns import TurnCompleted
from tests.workers.jobs import post, take
from workers.backlog import Backlog


async def test_a_message_nobody_has_taken_is_in_the_backlog_of_its_stage(bus: Bus) -> None:
    before = await _backlog(bus)
    event = codec.encode(TurnCompleted(turn_id="t"))
    await bus.store(subjects.turn_event(subjects.TURN_COMPLETED, 0), event, msg_id=None)
    assert await _backlog(bus) == before + 1


async def _backlog(bus: Bus) -> float:
    await Backlog(bus).look()
    found = REGISTRY.get_sample_value("cozy_queue_backlog", {"stage": "memory_writeback"})
    assert found is not None
    return found


async def test_a_backlog_is_as_old_as_the_oldest_event_that_nobody_has_had(bus: Bus) -> None:
    backlog, clock = Backlog(bus), asyncio.get_running_loop().time
    assert await backlog.age(MEMORY_WRITEBACK) is None
    began = clock()
    await post(bus, "a", "b")
    between = clock()
    await asyncio.sleep(0.1)
    oldest = await backlog.age(MEMORY_WRITEBACK)
    assert oldest is not None
    assert clock() - between - 0.01 <= oldest <= clock() - began + 0.01
    await post(bus, "c")
    for left in (2, 1, 0):
        await take(bus)
        age = await backlog.age(MEMORY_WRITEBACK)
        assert (age is None) == (left == 0)
    assert age is None


async def test_another_stage_s_events_are_no_backlog(bus: Bus) -> None:
    await post(bus, "a")
    assert await Backlog(bus).age(GENERATION) is None


async def test_a_server_without_the_consumer_has_no_backlog(bus: Bus) -> None:
    assert await Backlog(bus).age(ConsumerSpec(stage="nobody", filter_subject="turn.nobody.*")) is None
