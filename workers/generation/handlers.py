"""The door of generation: a prepared turn is claimed, answered and committed; then its reader is told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import structlog
from structlog.contextvars import bound_contextvars

from ops.runtime import metrics
from schemas import codec, subjects
from schemas.context import ContextBundle
from schemas.faults import EngineFailed, Fault, FaultRecord
from schemas.ids import part_of
from schemas.openai import ToolCall
from schemas.replies import Failed, Finished
from schemas.turns import TurnCompleted, TurnPrepared, TurnRequested, TurnState, TurnToolsCalled
from workers.delivery import Fenced, Later
from workers.engines.ai.pool import EnginePool
from workers.generation.committing import assistant_messages, client_calls, reply_so_far, tool_calls_of, tools_message
from workers.generation.listening import Listening
from workers.generation.pace import Pace
from workers.generation.partials import PartialKeeper
from workers.generation.prompt import model_call
from workers.generation.rounds import Round
from workers.generation.takeover import Prefix, may_continue, read_prefix
from workers.generation.writer import Piece, ReplyWriter
from workers.insisting import insist
from workers.stage import Stage
from workers.storage.turn_rows import Claimed, Ended

log = structlog.get_logger()

CUT_OFF = EngineFailed(
    "The reply was cut off, and its model cannot go on from the middle. What was said is kept."
).record


class Generation:
    """Lets the model speak. What it commits, it commits as the owner of the claim's epoch, or not at all."""

    def __init__(self, stage: Stage, engines: EnginePool, partials: PartialKeeper, pace: Pace) -> None:
        self.stage, self.turns, self.bus = stage, stage.turns, stage.bus
        self.engines, self.partials, self.pace = engines, partials, pace

    async def on_turn_prepared(self, event: TurnPrepared) -> None:
        """Claim the round, let the model answer, commit, and tell."""
        claimed = await self.turns.claim(event.turn_id, event.round, self.stage.worker_id)
        if claimed is None:
            await self._not_ours(event)
            return
        with bound_contextvars(user_id=claimed.user_id, session_id=claimed.session_id):
            await self._answer(await self._unpack(claimed))

    async def _unpack(self, claimed: Claimed) -> Round:
        return Round(
            claimed=claimed,
            arrival=codec.decode(claimed.arrival, TurnRequested),
            bundle=codec.decode(claimed.bundle, ContextBundle),
            steps=await self.turns.steps(claimed.turn_id) if claimed.round else [],
            prefix=await read_prefix(self.bus, claimed) if claimed.taken_over else Prefix.of(claimed),
        )

    async def _answer(self, round: Round) -> None:
        claimed = round.claimed
        writer = ReplyWriter(self.bus, claimed, self.pace, round.prefix)
        listening = Listening()
        resume = self.stage.config.models.traits(round.bundle.choice).resume
        if not may_continue(round.arrival.request, round.prefix, resume):
            await self._end_badly(round, writer, listening, CUT_OFF, TurnState.INTERRUPTED)
            return
        try:
            if claimed.taken_over:
                await writer.take_over(claimed.attempts)
            with self.partials.keeping(writer, claimed):
                await self._listen(round, writer, listening)
        except Fault as fault:
            await self._end_badly(round, writer, listening, fault.record, TurnState.FAILED)
            return
        except asyncio.CancelledError:
            writer.abandon()
            raise
        ours = tool_calls_of(round, listening)
        if ours and claimed.round < self.stage.config.tools.max_rounds:
            await self._call_tools(round, writer, listening, ours)
        else:
            await self._finish(round, writer, listening)

    async def _listen(self, round: Round, writer: ReplyWriter, listening: Listening) -> None:
        limits = self.stage.config.tools
        call = model_call(
            round.arrival.request,
            round.bundle,
            round.steps,
            last_round=round.claimed.round >= limits.max_rounds,
            scripted=round.arrival.scripted,
            prefix=round.prefix.text,
        )
        engine = await self.engines.engine(round.bundle.choice)
        async with aclosing(engine.chat_stream(call)) as chunks:
            async for together in chunks:
                pieces = listening.hear(together)
                if pieces:
                    await writer.say(pieces)

    async def _call_tools(self, round: Round, writer: ReplyWriter, listening: Listening, calls: list[ToolCall]) -> None:
        claimed = round.claimed
        await writer.flush()
        await writer.heal()
        message, rows = tools_message(round, writer, calls)
        reply = reply_so_far(round, writer, listening)
        if not await insist(lambda: self.turns.call_tools(claimed, reply, message, rows)):
            raise Fenced
        event = TurnToolsCalled(turn_id=claimed.turn_id, round=claimed.round)
        await self._say_tools_called(event, claimed.shard)

    async def _finish(self, round: Round, writer: ReplyWriter, listening: Listening) -> None:
        claimed = round.claimed
        calls = client_calls(round, listening)
        writer.add([Piece(choice, tool_calls=found) for choice, found in calls.items() if found])
        await writer.seal()
        reply = reply_so_far(round, writer, listening)
        reasons = [listening.finish_reason(choice, found) for choice, found in calls.items()]
        messages = assistant_messages(round, writer, listening, calls)
        ended = await insist(
            lambda: self.turns.finish(claimed, TurnState.COMPLETED, reply, messages, finish_reasons=reasons)
        )
        if ended is None:
            raise Fenced
        finished = Finished(
            claimed.epoch, writer.index, reasons, reply.usage, writer.length, writer.digest, TurnState.COMPLETED.value
        )
        log.info("reply_finished", attempt=claimed.attempts, round=claimed.round, **reply.timings)
        if self.stage.config.observability.log_content:
            log.info("answered", content=writer.text())
        metrics.turn_ended("completed")
        metrics.tokens(reply.usage.prompt_tokens, reply.usage.completion_tokens)
        await asyncio.gather(writer.tell(finished), self._say_completed(claimed.turn_id, claimed.shard))
        await self._release(claimed, ended)

    async def _end_badly(
        self, round: Round, writer: ReplyWriter, listening: Listening, fault: FaultRecord, state: TurnState
    ) -> None:
        """Commit what was said, and say why it is not more."""
        claimed = round.claimed
        await writer.seal()
        reply = reply_so_far(round, writer, listening)
        messages = assistant_messages(round, writer, listening, {}, state=state) if writer.said else []
        ended = await insist(lambda: self.turns.finish(claimed, state, reply, messages, fault=fault))
        if ended is None:
            raise Fenced
        log.warning("reply_failed", code=fault.code, attempt=claimed.attempts, events=writer.index)
        metrics.turn_ended(state.value)
        failed = Failed(claimed.epoch, writer.index, fault, state.value)
        await asyncio.gather(writer.tell(failed), self._say_completed(claimed.turn_id, claimed.shard))
        await self._release(claimed, ended)

    async def _release(self, claimed: Claimed, ended: Ended) -> None:
        """Let the session's next turn run. Asked anew after the commit: a turn queued during it was not in its sight.

        Only a turn's own hidden session is believed to be empty without asking again.
        """
        if ended.others_wait or ended.session_id != part_of(claimed.turn_id, "session"):
            await self.stage.endings.release(ended.session_id)

    async def _say_completed(self, turn_id: str, shard: int) -> None:
        event = codec.encode(TurnCompleted(turn_id=turn_id))
        await self.bus.store(subjects.turn_event(subjects.TURN_COMPLETED, shard), event, msg_id=f"{turn_id}.completed")

    async def _say_tools_called(self, event: TurnToolsCalled, shard: int) -> None:
        subject = subjects.turn_event(subjects.TURN_TOOLS_CALLED, shard)
        await self.bus.store(subject, codec.encode(event), msg_id=f"{event.turn_id}.tools.{event.round}")

    async def _not_ours(self, event: TurnPrepared) -> None:
        """Nothing to claim: the turn has an owner who lives, or its end is committed but perhaps not told."""
        stand = await self.turns.stand(event.turn_id)
        if stand is None:
            log.error("turn_unknown")
            return
        if stand.state == TurnState.GENERATING and stand.round == event.round:
            raise Later(self.stage.config.storage.lease / 2)
        if stand.state == TurnState.CALLING_TOOLS and stand.round == event.round:
            await self._say_tools_called(TurnToolsCalled(turn_id=event.turn_id, round=event.round), stand.shard)
            return
        end = await self.turns.end_of(event.turn_id)
        if end is not None:
            frame, subject = end.frame(), subjects.reply(end.shard, event.turn_id)
            await asyncio.gather(
                self.bus.store(subject, codec.encode(frame), msg_id=f"{event.turn_id}.end.{end.epoch}"),
                self._say_completed(event.turn_id, end.shard),
            )
            await self.stage.endings.release(end.session_id)
