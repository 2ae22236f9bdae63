"""The end of a round: what was said is committed as the owner of the claim's epoch, and then told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from ops.runtime import metrics
from schemas.faults import FaultRecord
from schemas.openai import ToolCall, Usage
from schemas.replies import Failed, Finished
from schemas.turns import TurnState
from workers.delivery import Fenced
from workers.generation.committing import assistant_messages, client_calls, reply_so_far, tools_message
from workers.generation.listening import Listening
from workers.generation.rounds import Round
from workers.generation.writer import Piece, ReplyWriter
from workers.insisting import insist
from workers.onward import say_tools_called
from workers.stage import Stage
from workers.storage.turn_rows import Reply

log = structlog.get_logger()

Calls = Mapping[int, Sequence[ToolCall]]
"""By choice, what the client is to call."""


class RoundEnd:
    """Ends one round, in one of four ways. Raises Fenced where another worker owns the turn by now."""

    def __init__(self, stage: Stage, round: Round, writer: ReplyWriter) -> None:
        self._stage, self._turns, self._bus = stage, stage.turns, stage.bus
        self._round, self._claimed, self._writer = round, round.claimed, writer

    async def call_tools(self, listening: Listening, calls: list[ToolCall]) -> None:
        """Commit the calls, and hand them on. A turn that was stopped meanwhile calls nothing and ends."""
        claimed = self._claimed
        await self._writer.flush()
        await self._writer.heal()
        message, rows = tools_message(self._round, self._writer, calls)
        reply = reply_so_far(self._round, self._writer, listening)
        if not await insist(lambda: self._turns.call_tools(claimed, reply, message, rows)):
            stand = await insist(lambda: self._turns.stand(claimed.turn_id))
            if stand is None or stand.epoch != claimed.epoch:
                raise Fenced
            if stand.state != TurnState.CALLING_TOOLS:  # else an earlier try did it, and its answer was lost
                await self.stopped(listening)
                return
        await say_tools_called(self._stage.bus, claimed.turn_id, claimed.round, claimed.shard)

    async def finish(self, listening: Listening) -> None:
        """The reply is whole."""
        calls = client_calls(self._round, listening)
        self._writer.add([Piece(choice, tool_calls=found) for choice, found in calls.items() if found])
        reasons = [listening.finish_reason(choice, found) for choice, found in calls.items()]
        await self._well(listening, TurnState.COMPLETED, calls, reasons)

    async def stopped(self, listening: Listening) -> None:
        """The user said stop, or nobody listens: what was shown is the reply."""
        if not listening.begun and not self._round.prefix.said:
            listening.usage = Usage()  # the model was never asked
        reasons = ["stop"] * (self._round.arrival.request.n or 1)
        await self._well(listening, TurnState.CANCELLED, {}, reasons)

    async def badly(self, listening: Listening, fault: FaultRecord, state: TurnState) -> None:
        """Commit what was said, and say why it is not more."""
        claimed, writer = self._claimed, self._writer
        _, session_id = await self._commit(listening, state, {}, fault=fault)
        log.warning("reply_failed", code=fault.code, attempt=claimed.attempts, events=writer.index)
        await self._tell(Failed(claimed.epoch, writer.index, fault, state.value), session_id)

    async def _well(self, listening: Listening, state: TurnState, calls: Calls, reasons: list[str]) -> None:
        claimed, writer, stopped = self._claimed, self._writer, state is TurnState.CANCELLED
        reply, session_id = await self._commit(listening, state, calls, reasons=reasons)
        event = "reply_stopped" if stopped else "reply_finished"
        log.info(event, attempt=claimed.attempts, round=claimed.round, **reply.timings)
        if self._stage.config.observability.log_content:
            log.info("answered", content=writer.text())
        metrics.tokens(reply.usage.prompt_tokens, reply.usage.completion_tokens)
        measure = (writer.length, writer.digest)
        end = Finished(claimed.epoch, writer.index, reasons, reply.usage, *measure, state.value, stopped)
        await self._tell(end, session_id)

    async def _commit(
        self,
        listening: Listening,
        state: TurnState,
        calls: Calls,
        *,
        reasons: Sequence[str] = (),
        fault: FaultRecord | None = None,
    ) -> tuple[Reply, str]:
        """What is committed as the turn's end, and the session whose next turn may run."""
        claimed, writer = self._claimed, self._writer
        await writer.seal()
        reply = reply_so_far(self._round, writer, listening)
        # Only a whole reply may be empty: of one that ended before its first word there is no message.
        keeps = state is TurnState.COMPLETED or writer.said
        messages = assistant_messages(self._round, writer, listening, calls, state=state) if keeps else []
        ended = await insist(
            lambda: self._turns.finish(claimed, state, reply, messages, finish_reasons=reasons, fault=fault),
            lambda: self._turns.ended_by(claimed),
        )
        if ended is None:
            raise Fenced
        return reply, ended.session_id

    async def _tell(self, end: Finished | Failed, session_id: str) -> None:
        metrics.turn_ended(end.state)
        turn_id, endings = self._claimed.turn_id, self._stage.endings
        await asyncio.gather(self._writer.tell(end), endings.say_completed(turn_id, self._claimed.shard))
        await endings.release_after(turn_id, session_id)
