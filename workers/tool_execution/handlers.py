"""The door of tool_execution: a round's calls are claimed, run side by side, and committed in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from ops.runtime.bus import BusUnavailable
from schemas import codec, subjects
from schemas.context import ContextBundle
from schemas.ids import part_of
from schemas.replies import Progress
from schemas.turns import ENDS, TurnState, TurnToolsCalled
from workers.delivery import Fenced
from workers.insisting import insist
from workers.onward import say_prepared
from workers.stage import Stage
from workers.storage.turn_rows import AskedCall, ToolsClaimed
from workers.tool_execution.attention import Attention
from workers.tool_execution.calls import CallRunner

log = structlog.get_logger()


class ToolExecution:
    """Runs the tools of a round and lets the model speak again."""

    def __init__(self, stage: Stage, runner: CallRunner) -> None:
        self.stage, self.turns, self.bus, self.runner = stage, stage.turns, stage.bus, runner
        self.attention = Attention(stage.turns)

    async def on_tools_called(self, event: TurnToolsCalled) -> None:
        """Claim the round's calls, run them, commit the results, and open the next round.

        Raises Fenced where another owner has followed: a call that has begun is left to that one's judgement.
        """
        with self.stage.stops.of(event.turn_id) as stop:
            # A claim whose answer was lost would leave a living owner that does not know of it.
            claimed = await insist(lambda: self.turns.claim_tools(event.turn_id, event.round, self.stage.worker_id))
            if claimed is None:
                await self._not_ours(event)
                return
            async with self.stage.holding(claimed.turn_id, claimed.epoch):
                await self._call(claimed, stop)

    async def _call(self, claimed: ToolsClaimed, stop: asyncio.Event) -> None:
        bundle = codec.decode(claimed.bundle, ContextBundle)
        allowed = frozenset(tool.function.name for tool in bundle.tools)
        calls = await self.turns.asked_calls(claimed.turn_id, claimed.round)
        async with self.attention.on(claimed):
            # One that fails must not cancel the others in the middle of their effects.
            answers = await asyncio.gather(
                *(self._run(claimed, call, allowed, stop) for call in calls), return_exceptions=True
            )
        results = [
            (part_of(claimed.turn_id, "result", claimed.round, position), call.call_id, answer)
            for position, (call, answer) in enumerate(zip(calls, told(answers), strict=True))
        ]
        finished = await insist(
            lambda: self.turns.finish_tools(claimed, results), lambda: self.turns.tools_finished_by(claimed)
        )
        if not finished:
            raise Fenced
        await say_prepared(self.bus, claimed.turn_id, claimed.round + 1, claimed.shard)

    async def _run(self, claimed: ToolsClaimed, call: AskedCall, allowed: frozenset[str], stop: asyncio.Event) -> str:
        await self._show(claimed, call, "running")
        answer = await self.runner.run(claimed, call, allowed, stop)
        await self._show(claimed, call, "done")
        return answer

    async def _show(self, claimed: ToolsClaimed, call: AskedCall, state: str) -> None:
        """Best effort: a reader that misses it misses no word of the reply."""
        frame = Progress(claimed.epoch, call.name, call.call_id, state)
        with contextlib.suppress(BusUnavailable):
            await self.bus.publish(subjects.reply(claimed.shard, claimed.turn_id), codec.encode(frame))

    async def _not_ours(self, event: TurnToolsCalled) -> None:
        stand = await self.turns.stand(event.turn_id)
        if stand is None:
            log.error("turn_unknown")
        elif stand.state == TurnState.CALLING_TOOLS and stand.round == event.round:
            raise self.stage.held_by_another(stand.claim_in)
        elif stand.state == TurnState.PREPARED and stand.round == event.round + 1:
            await say_prepared(self.bus, event.turn_id, stand.round, stand.shard)
        elif stand.state in ENDS:
            await self.stage.endings.tell_end(event.turn_id)  # whoever failed it may have died before it could tell


def told(answers: Sequence[str | BaseException]) -> list[str]:
    """What every call answered. Raises Fenced, or what went wrong, once all of them are over."""
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if any(isinstance(failure, Fenced) for failure in failures):
        raise Fenced
    if failures:
        raise BaseExceptionGroup("calls of tools", failures)
    return [answer for answer in answers if isinstance(answer, str)]
