"""What follows a turn's end: its reader is told, and the session's next turn may run."""

from __future__ import annotations

import structlog

from ops.runtime import metrics
from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.faults import FaultRecord
from schemas.replies import Failed, Fence
from schemas.turns import TurnReleased
from workers.storage.arrivals import Arrivals
from workers.storage.turns import Turns

log = structlog.get_logger()


class Endings:
    """Shared by every stage, since any of them can be the one that ends a turn."""

    def __init__(self, turns: Turns, arrivals: Arrivals, bus: Bus) -> None:
        self.turns, self.arrivals, self.bus = turns, arrivals, bus

    async def fail(self, turn_id: str, fault: FaultRecord) -> None:
        """End a turn that cannot go on, tell its reader, let its session go on. An ended turn stays as it is."""
        row = await self.turns.fail(turn_id, fault)
        if row is None:
            return
        metrics.turn_ended("failed")
        log.warning("turn_failed", turn_id=turn_id, code=fault.code)
        await self.tell_failure(row.turn_id, row.shard, row.epoch, fault)
        await self.release(row.session_id)

    async def tell_failure(self, turn_id: str, shard: int, epoch: int, fault: FaultRecord) -> None:
        """Void what an owner may still say, then say that the turn has failed."""
        subject = subjects.reply(shard, turn_id)
        await self.bus.store(subject, codec.encode(Fence(epoch)), msg_id=f"{turn_id}.fence.{epoch}")
        await self.bus.store(subject, codec.encode(Failed(epoch, 0, fault)), msg_id=f"{turn_id}.failed.{epoch}")

    async def release(self, session_id: str) -> None:
        """Let the session's next waiting turn run, if there is one and none is running."""
        ready = await self.arrivals.release_next(session_id)
        if ready is not None:
            await self.announce(ready.turn_id, ready.shard)

    async def announce(self, turn_id: str, shard: int, *, again: str = "") -> None:
        """Put a released turn on its way. `again` makes the message id fresh, for one that stood still."""
        event = codec.encode(TurnReleased(turn_id=turn_id))
        subject = subjects.turn_event(subjects.TURN_REQUESTED, shard)
        await self.bus.store(subject, event, msg_id=f"{turn_id}.released{again}")
