"""The door of generation: a prepared turn is claimed, answered and committed; then its reader is told."""

from __future__ import annotations

import asyncio

import structlog
from structlog.contextvars import bound_contextvars

from schemas import codec
from schemas.context import ContextBundle
from schemas.faults import EngineFailed, Fault
from schemas.ids import part_of
from schemas.turns import TurnPrepared, TurnRequested, TurnState
from workers.delivery import Fenced
from workers.engines.ai.pool import EnginePool
from workers.generation.attention import Attended, Attention
from workers.generation.committing import tool_calls_of
from workers.generation.ending import RoundEnd
from workers.generation.holes import Stock
from workers.generation.pace import Pace
from workers.generation.partials import PartialKeeper
from workers.generation.rounds import Round
from workers.generation.speaking import Speech
from workers.generation.takeover import Prefix, may_continue, read_prefix, unless_forgotten
from workers.generation.writer import ReplyWriter
from workers.insisting import insist
from workers.onward import say_tools_called
from workers.stage import Stage
from workers.stops import Stopped
from workers.storage.turn_rows import Claimed

log = structlog.get_logger()

CUT_OFF = EngineFailed(
    "The reply was cut off, and its model cannot go on from the middle. What was said is kept."
).record
TAKEOVERS_AT_ONCE = 16
"""Replies of lost owners read back at a time: a hundred at once would starve the replies under way."""


class Generation:
    """Lets the model speak. What it commits, it commits as the owner of the claim's epoch, or not at all."""

    def __init__(self, stage: Stage, engines: EnginePool, partials: PartialKeeper, pace: Pace) -> None:
        self.stage, self.turns, self.bus = stage, stage.turns, stage.bus
        self.engines, self.partials, self.pace = engines, partials, pace
        self.attention = Attention(stage.bus, stage.config.engines.generation)
        self._stock = Stock(stage.bus)
        self._takeovers = asyncio.Semaphore(TAKEOVERS_AT_ONCE)

    async def on_turn_prepared(self, event: TurnPrepared) -> None:
        """Claim the round, let the model answer, commit, and tell."""
        attended = Attended()
        with self.stage.stops.of(event.turn_id, attended.stop):
            # A claim whose answer was lost would leave a living owner that does not know of it.
            claimed = await insist(lambda: self.turns.claim(event.turn_id, event.round, self.stage.worker_id))
            if claimed is None:
                await self._not_ours(event)
                return
            with bound_contextvars(user_id=claimed.user_id, session_id=claimed.session_id):
                async with self.stage.holding(claimed.turn_id, claimed.epoch):
                    await self._answer(await self._unpack(claimed), attended)

    async def _unpack(self, claimed: Claimed) -> Round:
        return Round(
            claimed=claimed,
            arrival=codec.decode(claimed.arrival, TurnRequested),
            bundle=codec.decode(claimed.bundle, ContextBundle),
            steps=await self.turns.steps(claimed.turn_id) if claimed.round else [],
            prefix=await self._taken(claimed) if claimed.taken_over else Prefix.of(claimed),
        )

    async def _taken(self, claimed: Claimed) -> Prefix:
        async with self._takeovers:
            prefix = await read_prefix(self.bus, claimed)
        message_id = part_of(claimed.turn_id, "reply", claimed.round, 0)
        return unless_forgotten(prefix, await self.turns.kept_partial(message_id))

    async def _answer(self, round: Round, attended: Attended) -> None:
        claimed, request = round.claimed, round.arrival.request
        writer = ReplyWriter(self.bus, claimed, self.pace, round.prefix, self._stock)
        speech = Speech(self.stage.config, self.engines, round, writer)
        end = RoundEnd(self.stage, round, writer)
        if claimed.stopped:
            attended.stop()
        elif not may_continue(request, round.prefix, speech.resume):
            await end.badly(speech.listening, CUT_OFF, TurnState.INTERRUPTED)
            return
        try:
            if claimed.taken_over:
                await writer.take_over(claimed.attempts)
            with (
                self.partials.keeping(writer, claimed, attended.fence),
                self.attention.on(attended, writer, request.cozy.on_disconnect if request.cozy else None),
            ):
                await speech.say()
        except Stopped:
            await end.stopped(speech.listening)
        except Fault as fault:
            await end.badly(speech.listening, fault.record, TurnState.FAILED)
        except (asyncio.CancelledError, Fenced):
            writer.abandon()
            raise
        else:
            await self._end(round, speech, end)

    async def _end(self, round: Round, speech: Speech, end: RoundEnd) -> None:
        ours = tool_calls_of(round, speech.listening)
        if ours and round.claimed.round < self.stage.config.tools.max_rounds:
            await end.call_tools(speech.listening, ours)
        else:
            await end.finish(speech.listening)

    async def _not_ours(self, event: TurnPrepared) -> None:
        """Nothing to claim: the turn has an owner who lives, or its end is committed but perhaps not told."""
        stand = await self.turns.stand(event.turn_id)
        if stand is None:
            log.error("turn_unknown")
            return
        if stand.state == TurnState.GENERATING and stand.round == event.round:
            raise self.stage.held_by_another(stand.claim_in)
        if stand.state == TurnState.CALLING_TOOLS and stand.round == event.round:
            await say_tools_called(self.bus, event.turn_id, event.round, stand.shard)
            return
        await self.stage.endings.tell_end(event.turn_id)
