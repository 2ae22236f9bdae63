"""The door of context_fetch: a turn arrives, is accepted or refused, and is prepared for generation."""

from __future__ import annotations

import structlog

from ops.runtime import metrics
from ops.runtime.bus import Bus
from schemas import codec
from schemas.context import ContextBundle
from schemas.faults import Fault
from schemas.ids import part_of
from schemas.turns import (
    ENDS,
    Accepted,
    Refused,
    TurnArrival,
    TurnReleased,
    TurnRequested,
    TurnState,
)
from workers.context_fetch.acceptance import Acceptance
from workers.context_fetch.intake import answerer
from workers.endings import Endings
from workers.onward import say_prepared
from workers.storage.turn_rows import ReleasedRow
from workers.storage.turns import Turns

log = structlog.get_logger()


class ContextFetch:
    """Handles what arrives. Every step may be repeated after a crash and changes nothing the second time."""

    def __init__(self, acceptance: Acceptance, turns: Turns, endings: Endings, bus: Bus) -> None:
        self.acceptance, self.turns, self.endings, self.bus = acceptance, turns, endings, bus

    async def on_turn_arrival(self, event: TurnArrival) -> None:
        """Take a new turn in, or prepare one whose time has come."""
        if isinstance(event, TurnRequested):
            await self._take_in(event)
        else:
            await self._prepare_released(event)

    async def _take_in(self, arrival: TurnRequested) -> None:
        try:
            verdict, state = await self.acceptance.accept(arrival)
        except Fault as fault:
            log.info("turn_refused", code=fault.code)
            refused = Refused(turn_id=arrival.turn_id, fault=fault.record)
            await self.bus.publish(arrival.verdict_subject, codec.encode(refused))
            return
        log.info("turn_accepted", session_id=verdict.session_id, state=state.value, attached=verdict.attached)
        if not verdict.attached:
            metrics.turn_accepted()
        await self.bus.publish(arrival.verdict_subject, codec.encode(verdict))
        await self._go_on(verdict, state)

    async def _go_on(self, verdict: Accepted, state: TurnState) -> None:
        if state is TurnState.PREPARED:
            await say_prepared(self.bus, verdict.turn_id, 0, verdict.shard)
        elif state is TurnState.ACCEPTED:
            await self._prepare_released(TurnReleased(turn_id=verdict.turn_id))
        elif state is TurnState.QUEUED:
            # Whoever it waits for may have ended between our look and our commit; then nobody else would release it.
            await self.endings.release(verdict.session_id)

    async def _prepare_released(self, event: TurnReleased) -> None:
        row = await self.acceptance.arrivals.released(event.turn_id)
        if row is not None:
            try:
                bundle = await self._bundle(row)
            except Fault as fault:
                await self.endings.fail(event.turn_id, fault.record)
                return
            await self.acceptance.arrivals.prepare(row.turn_id, bundle)
        stand = await self.turns.stand(event.turn_id)
        if stand is not None and stand.state == TurnState.PREPARED:
            await say_prepared(self.bus, event.turn_id, stand.round, stand.shard)
        elif stand is not None and stand.state in ENDS:
            await self.endings.tell_end(event.turn_id)  # whoever failed it may have died before it could tell

    async def _bundle(self, row: ReleasedRow) -> ContextBundle:
        arrival, acceptance = codec.decode(row.arrival, TurnRequested), self.acceptance
        if row.session_id == part_of(row.turn_id, "session"):
            return acceptance.bundle_alone(arrival)
        config = acceptance.config
        who = answerer(arrival.request, config.personalities, config.models, row.personality_id)
        return await acceptance.bundle_in_session(acceptance.arrivals.database, arrival, row.session_id, who)
