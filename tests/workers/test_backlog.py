"""What waits for a stage is counted."""

from __future__ import annotations

from prometheus_client import REGISTRY

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.turns import TurnCompleted
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
