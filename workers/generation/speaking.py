"""Lets the model say one round's reply: in one call, or in several where its server breaks off in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import structlog

from ops.runtime import metrics
from ops.runtime.config import Config
from schemas.faults import Fault
from workers.engines.ai.pool import EnginePool
from workers.engines.ai.watchdog import TooLate
from workers.generation.listening import Listening
from workers.generation.prompt import model_call
from workers.generation.rounds import Round
from workers.generation.seam import Seam
from workers.generation.takeover import may_continue
from workers.generation.writer import Piece, ReplyWriter

log = structlog.get_logger()

SILENCES = 1
"""How often a server that fell silent is asked again: each time the user waits for the whole limit."""


class Speech:
    """One round in which the model speaks. `listening` is what its last answer was, whole or not."""

    def __init__(self, config: Config, engines: EnginePool, round: Round, writer: ReplyWriter) -> None:
        self._config, self._engines, self._round, self._writer = config, engines, round, writer
        self.resume = config.models.traits(round.bundle.choice).resume
        self.listening = Listening(round.prefix)
        self._troubles = self._silences = 0
        self._waited = 0.0
        self._ends_at = asyncio.get_running_loop().time() + config.engines.generation.total_timeout

    async def say(self) -> None:
        """Say it all. A server that breaks off is asked to go on from what was shown, where that is possible: the
        reader notices a pause. Raises the fault of the last call where it is not.
        """
        while True:
            try:
                await self._call()
                return
            except Fault as fault:
                await self._writer.flush()
                pause = fault.record.retry_after or 0.0
                if not self._goes_on(fault, pause):
                    raise
                log.warning("reply_goes_on", code=fault.code, events=self._writer.index, trouble=self._troubles)
                metrics.ENGINE_CALLS.labels("ai", self._round.bundle.choice.provider, "gone_on").inc()
                await asyncio.sleep(pause)
                self.listening = Listening(self._writer.shown())

    def _goes_on(self, fault: Fault, pause: float) -> bool:
        limits, shown = self._config.engines.generation, self._writer.shown()
        self._troubles += 1
        self._silences += isinstance(fault, TooLate)
        self._waited += pause
        # What failed before it said anything was tried again by the engine's guard, as often as is allowed.
        return (
            self.listening.begun
            and fault.retryable
            and self._troubles <= limits.retries
            and self._silences <= SILENCES
            and self._waited <= limits.retry_budget
            and asyncio.get_running_loop().time() < self._ends_at
            and not (shown.said and self.listening.calling)
            and may_continue(self._round.arrival.request, shown, self.resume)
        )

    async def _call(self) -> None:
        round, before = self._round, self.listening.before
        call = model_call(
            round.arrival.request,
            round.bundle,
            round.steps,
            last_round=round.claimed.round >= self._config.tools.max_rounds,
            scripted=round.arrival.scripted,
            prefix=before,
            resume=self.resume,
        )
        if call.max_output_tokens is not None and call.max_output_tokens <= 0:
            self.listening.finish_reasons[0] = "length"
            return
        words = before.text if before and self.resume == "continue" else None
        joint = Joint(Seam(words), self.listening) if words else None
        engine = await self._engines.engine(round.bundle.choice)
        async with aclosing(engine.chat_stream(call)) as chunks:
            async for together in chunks:
                pieces = self.listening.hear(together)
                if joint is not None:
                    pieces = joint.passed(pieces)
                if pieces:
                    await self._writer.say(pieces)
        if joint is not None and (pieces := joint.rest()):
            await self._writer.say(pieces)


class Joint:
    """Takes what the model says first through the seam, and lets all else pass."""

    def __init__(self, seam: Seam, listening: Listening) -> None:
        self._seam, self._listening = seam, listening
        self._lengths: list[int] = []

    def passed(self, pieces: Sequence[Piece]) -> list[Piece]:
        """What may be shown of these."""
        return [fitting for piece in pieces for fitting in self._fitting(piece)]

    def rest(self) -> list[Piece]:
        """What may be shown of what was held back: the model is done."""
        return [] if self._seam.decided else self._piece(self._seam.end())

    def _fitting(self, piece: Piece) -> list[Piece]:
        if self._seam.decided or not piece.text:
            return [piece]
        self._lengths.append(len(piece.text))
        shown = self._seam.feed(piece.text)
        return self._piece(shown) if self._seam.decided else []

    def _piece(self, shown: str) -> list[Piece]:
        left, dropped = len(self._lengths), self._seam.dropped
        for length in self._lengths:
            dropped -= length
            if dropped < 0 or left == 0:
                break
            left -= 1
        self._listening.swallowed = len(self._lengths) - left
        if not shown:
            return []
        piece = Piece(0, shown)
        piece.tokens = max(1, left)
        return [piece]
