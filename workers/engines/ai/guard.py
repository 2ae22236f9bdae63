"""What the house adds to every AI engine: time limits, retries before the first chunk, a log line for each call."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

import structlog
import tenacity

from ops.runtime import metrics
from ops.runtime.settings import Generation, ModelTraits
from schemas.context import ModelChoice
from schemas.faults import EngineFailed, EngineInternal, Fault
from workers.engines.ai.chunks import Chunk
from workers.engines.ai.port import API_VERSION, AIEngine, ModelCall
from workers.engines.ai.watchdog import TooLate, Watchdog

log = structlog.get_logger()
_backoff = tenacity.wait_random_exponential(multiplier=0.2, max=5.0)


class GuardedEngine(AIEngine):
    """An engine as the stages use it: one provider's, for one model."""

    api_version = API_VERSION

    def __init__(self, engine: AIEngine, choice: ModelChoice, limits: Generation, traits: ModelTraits) -> None:
        self._engine = engine
        self._choice = choice
        self._limits = limits
        self._traits = traits
        self._used = False

    async def initialize(self) -> None:
        """Make the engine ready; the pool already has."""
        await self._engine.initialize()

    async def close(self) -> None:
        """Close the engine, for all models of its provider."""
        await self._engine.close()

    async def health_check(self) -> dict[str, Any]:
        """As the engine's."""
        return await self._engine.health_check()

    def supports_tools(self, model: str) -> bool:
        """Whether engine and configuration both say so."""
        return self._traits.supports_tools and self._engine.supports_tools(model)

    def supports_vision(self, model: str) -> bool:
        """Whether engine and configuration both say so."""
        return self._traits.supports_vision and self._engine.supports_vision(model)

    async def chat_stream(self, call: ModelCall) -> AsyncGenerator[list[Chunk], None]:
        """As the engine's, within the limits, and tried again while nothing was said.

        An attempt that could not be connected, was told to wait (for as long as it was told) or failed is made
        again; one that only was silent, or was refused, is not. The call is logged and counted when the generator is
        closed; its outcome is `completed`, `closed` (early, by the consumer) or a fault's code.
        """
        reused, self._used = self._used, True
        started, outcome = time.monotonic(), "closed"
        watchdog = Watchdog(limit=self._limits.first_token_timeout, total=self._limits.total_timeout)
        try:
            stream, chunks = await self._first(call, watchdog)
            try:
                watchdog.set_limit(self._limits.idle_timeout)
                while True:
                    yield chunks
                    with watchdog:
                        chunks = await anext(stream)
            except StopAsyncIteration:
                outcome = "completed"
            finally:
                await stream.aclose()
        except Exception as error:
            outcome = error.code if isinstance(error, Fault) else EngineInternal.code
            raise
        finally:
            watchdog.close()
            self._report(outcome, time.monotonic() - started, reused)

    async def _first(
        self, call: ModelCall, watchdog: Watchdog
    ) -> tuple[AsyncGenerator[list[Chunk], None], list[Chunk]]:
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_worth_another),
            stop=tenacity.stop_after_attempt(self._limits.retries + 1)
            | tenacity.stop_before_delay(self._limits.retry_budget),
            wait=_wait,
            before_sleep=self._say_retry,
            reraise=True,
        )
        return await attempts(self._attempt, call, watchdog)

    async def _attempt(
        self, call: ModelCall, watchdog: Watchdog
    ) -> tuple[AsyncGenerator[list[Chunk], None], list[Chunk]]:
        """The stream and what it said first. Servers may announce the role long before the first token."""
        stream, chunks = self._engine.chat_stream(call), list[Chunk]()
        try:
            with watchdog:
                while not any(map(_says_something, chunks)):
                    chunks += await anext(stream)
        except StopAsyncIteration:
            raise EngineFailed("The model server answered nothing.") from None
        except BaseException:
            await stream.aclose()
            raise
        return stream, chunks

    def _report(self, outcome: str, seconds: float, reused: bool) -> None:
        provider, model = self._choice.provider, self._choice.model
        metrics.ENGINE_CALLS.labels("ai", provider, outcome).inc()
        metrics.ENGINE_SECONDS.labels("ai", provider).observe(seconds)
        log.info(
            "engine_called",
            provider=provider,
            model=model,
            reused=reused,
            duration_ms=round(seconds * 1000, 1),
            outcome=outcome,
        )

    def _say_retry(self, state: tenacity.RetryCallState) -> None:
        metrics.ENGINE_CALLS.labels("ai", self._choice.provider, "retried").inc()
        log.warning(
            "engine_retried",
            provider=self._choice.provider,
            model=self._choice.model,
            attempt=state.attempt_number,
            wait_ms=round(state.upcoming_sleep * 1000),
            code=_fault_of(state).code,
        )


def _says_something(chunk: Chunk) -> bool:
    for choice in chunk.choices:
        delta = choice.delta
        if delta.content or delta.thought or delta.tool_calls or delta.refusal or choice.finish_reason:
            return True
    return False


def _worth_another(error: BaseException) -> bool:
    return isinstance(error, Fault) and error.retryable and not isinstance(error, TooLate)


def _wait(state: tenacity.RetryCallState) -> float:
    asked = _fault_of(state).record.retry_after
    return _backoff(state) if asked is None else asked


def _fault_of(state: tenacity.RetryCallState) -> Fault:
    assert state.outcome is not None
    fault = state.outcome.exception()
    assert isinstance(fault, Fault)
    return fault
