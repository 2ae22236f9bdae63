"""What follows a turn's end: its reader is told, and the session's next turn may run."""

from __future__ import annotations

import msgspec
import structlog

from ops.runtime import metrics
from ops.runtime.bus import STORE_BUDGET, Bus
from schemas import codec, subjects
from schemas.faults import FaultRecord
from schemas.ids import part_of
from schemas.replies import Fence
from schemas.turns import TurnCompleted, TurnReleased, TurnState
from workers.shown import shown_after, shown_messages
from workers.storage.arrivals import Arrivals
from workers.storage.turn_rows import TurnEnd
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
        await self.tell_end(turn_id)

    async def tell_end(self, turn_id: str, *, again: str = "", budget: float = STORE_BUDGET) -> None:
        """Void what an old owner may still say, say how the turn has ended, tell memory, and let its session go on.

        For whoever ends a turn from outside, or finds an end that may not have been told. `budget`: seconds for each
        message. Says nothing of a turn that has not ended. Raises BusUnavailable.
        """
        end = await self.turns.end_of(turn_id)
        if end is None:
            return
        subject = subjects.reply(end.shard, turn_id)
        fence = codec.encode(Fence(end.epoch))
        receipt = await self.bus.store(subject, fence, msg_id=f"{turn_id}.fence.{end.epoch}", budget=budget)
        if end.state == TurnState.FAILED:
            end = await self._with_what_was_shown(turn_id, end, receipt.seq)
        frame = codec.encode(end.frame())
        await self.bus.store(subject, frame, msg_id=f"{turn_id}.end.{end.epoch}", budget=budget)
        await self.say_completed(turn_id, end.shard, again=again, budget=budget)
        await self.release_after(turn_id, end.session_id)

    async def _with_what_was_shown(self, turn_id: str, end: TurnEnd, fence: int) -> TurnEnd:
        """A turn that failed in the middle of a reply keeps the words that its readers saw."""
        shown = await shown_after(self.bus, turn_id, end, fence)
        if shown.index <= end.shown_index:
            return end
        messages = shown_messages(turn_id, end, shown)
        measure = {"shown_index": shown.index, "shown_length": shown.length, "shown_digest": shown.digest}
        end = msgspec.structs.replace(end, **measure)
        await self.turns.keep_shown(turn_id, end, shown.said, messages)
        return end

    async def release(self, session_id: str) -> None:
        """Let whoever waited for a turn of this session to end run: in the session, or among its user's limited turns.

        To be called after the end's commit: a turn that was queued beside it was not in its sight.
        """
        for ready in await self.arrivals.release(session_id):
            await self.announce(ready.turn_id, ready.shard)

    async def release_after(self, turn_id: str, session_id: str) -> None:
        """The same after the end of this turn. Nobody can wait for one alone in its hidden session, unless users have
        a limit."""
        if self.arrivals.concurrent_turns is not None or session_id != part_of(turn_id, "session"):
            await self.release(session_id)

    async def say_completed(self, turn_id: str, shard: int, *, again: str = "", budget: float = STORE_BUDGET) -> None:
        """Tell memory that the turn has ended, well or not. `again` makes the message id fresh."""
        event = codec.encode(TurnCompleted(turn_id=turn_id))
        subject = subjects.turn_event(subjects.TURN_COMPLETED, shard)
        await self.bus.store(subject, event, msg_id=f"{turn_id}.completed{again}", budget=budget)

    async def announce(self, turn_id: str, shard: int, *, again: str = "") -> None:
        """Put a released turn on its way. `again` makes the message id fresh, for one that stood still."""
        event = codec.encode(TurnReleased(turn_id=turn_id))
        subject = subjects.turn_event(subjects.TURN_REQUESTED, shard)
        await self.bus.store(subject, event, msg_id=f"{turn_id}.released{again}")
