"""Time limits, retries and the log line of a call."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ops.runtime.settings import Generation, ModelTraits, Provider
from schemas.context import ModelChoice
from schemas.faults import EngineFailed, EngineOverloaded, EngineRefused, EngineTimeout
from tests.workers.engines.ai.conftest import MakeEngine, Says, asking, closed_early, requests, words_of
from workers.engines.ai.guard import GuardedEngine
from workers.engines.ai.openai_compatible import OpenAICompatible


async def test_a_failure_before_the_first_word_is_tried_again(make_engine: MakeEngine, scripted: str) -> None:
    call = asking("fail twice", tokens=3, fail=500, fail_times=2, fail_key="twice")
    assert len(await words_of(await make_engine(), call)) == 3
    assert [record["status"] for record in await requests(scripted, "fail twice")] == [500, 500, 200]


async def test_a_stream_that_breaks_before_its_first_word_is_tried_again(
    make_engine: MakeEngine, scripted: str
) -> None:
    call = asking("break at once", tokens=3, fail="malformed", fail_after=0, fail_times=1, fail_key="at once")
    assert len(await words_of(await make_engine(), call)) == 3
    assert len(await requests(scripted, "break at once")) == 2


async def test_nothing_is_tried_again_after_the_first_word(make_engine: MakeEngine, scripted: str) -> None:
    with pytest.raises(EngineFailed):
        await words_of(await make_engine(), asking("break later", fail="cut", fail_after=1))
    assert len(await requests(scripted, "break later")) == 1


async def test_retries_are_counted(make_engine: MakeEngine, scripted: str) -> None:
    with pytest.raises(EngineFailed):
        await words_of(await make_engine(retries=1), asking("fail for ever", fail=500))
    assert len(await requests(scripted, "fail for ever")) == 2


async def test_a_refusal_is_final(make_engine: MakeEngine, scripted: str) -> None:
    with pytest.raises(EngineRefused):
        await words_of(await make_engine(), asking("refuse me", fail=400))
    assert len(await requests(scripted, "refuse me")) == 1


async def test_a_retry_waits_for_as_long_as_the_server_asks(make_engine: MakeEngine) -> None:
    began = time.monotonic()
    await words_of(await make_engine(), asking(tokens=1, fail=429, fail_times=1, fail_key="wait", retry_after_ms=300))
    assert 0.3 <= time.monotonic() - began < 1.0


async def test_a_wait_beyond_the_budget_is_the_callers(make_engine: MakeEngine) -> None:
    began = time.monotonic()
    with pytest.raises(EngineOverloaded) as refused:
        await words_of(await make_engine(retry_budget=2), asking(fail=429, retry_after_ms=30_000))
    assert time.monotonic() - began < 1.0
    assert refused.value.record.retry_after == 30.0


async def test_a_slow_first_token_is_a_timeout_and_not_tried_again(make_engine: MakeEngine, scripted: str) -> None:
    with pytest.raises(EngineTimeout):
        await words_of(await make_engine(first_token_timeout=0.2), asking("too slow", ttft_ms=5000))
    await closed_early(scripted, "too slow", within=1)
    assert len(await requests(scripted, "too slow")) == 1


async def test_the_first_token_may_take_longer_than_the_next(make_engine: MakeEngine) -> None:
    """Although the scripted server, like others, announces the role at once."""
    assert len(await words_of(await make_engine(idle_timeout=0.2), asking(tokens=2, ttft_ms=500))) == 2


async def test_silence_within_a_reply_is_a_timeout(make_engine: MakeEngine) -> None:
    began = time.monotonic()
    with pytest.raises(EngineTimeout):
        await words_of(await make_engine(idle_timeout=0.2), asking(fail="hang", fail_after=2))
    assert 0.2 <= time.monotonic() - began < 1.5


async def test_a_server_that_never_answers_is_a_timeout(make_engine: MakeEngine) -> None:
    with pytest.raises(EngineTimeout):
        await words_of(await make_engine(first_token_timeout=0.2), asking(fail="hang", fail_after=0))


async def test_a_reply_that_never_ends_is_ended(make_engine: MakeEngine) -> None:
    began = time.monotonic()
    with pytest.raises(EngineTimeout):
        await words_of(await make_engine(total_timeout=0.5), asking(tokens=10_000, gap_ms=20))
    assert 0.5 <= time.monotonic() - began < 1.5


async def test_a_slow_consumer_is_not_a_silent_server(make_engine: MakeEngine) -> None:
    engine, heard = await make_engine(idle_timeout=0.1), 0
    async with aclosing(engine.chat_stream(asking(tokens=5, gap_ms=20))) as stream:
        async for chunks in stream:
            heard += len(chunks)
            await asyncio.sleep(0.15)
    assert heard >= 6


async def test_a_stream_that_says_nothing_is_a_failure(make_engine: MakeEngine, says: Says) -> None:
    url = await says(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\ndata: [DONE]\n\n")
    with pytest.raises(EngineFailed, match="nothing"):
        await words_of(await make_engine(url, retries=0), asking())


async def test_each_call_is_logged_with_its_outcome_and_without_words(make_engine: MakeEngine) -> None:
    engine = await make_engine(name="logged", retries=0)
    with capture_logs() as lines:
        await words_of(engine, asking("canary"))
        stream = engine.chat_stream(asking("canary [[gap=20]]"))
        await anext(stream)
        await stream.aclose()
        with pytest.raises(EngineFailed):
            await words_of(engine, asking("canary [[fail=500]]"))
    calls = [line for line in lines if line["event"] == "engine_called"]
    assert [call["outcome"] for call in calls] == ["completed", "closed", "ENGINE_FAILED"]
    assert [call["reused"] for call in calls] == [False, True, True]
    assert {(call["provider"], call["model"]) for call in calls} == {("logged", "scripted")}
    assert all(call["duration_ms"] > 0 for call in calls)
    assert "canary" not in str(lines)
    assert (
        REGISTRY.get_sample_value(
            "cozy_engine_calls_total", {"engine": "ai", "provider": "logged", "outcome": "completed"}
        )
        == 1.0
    )


async def test_each_retry_is_logged_and_counted(make_engine: MakeEngine) -> None:
    engine = await make_engine(name="retried")
    with capture_logs() as lines:
        await words_of(engine, asking("[[fail=429 fail-times=1 retry-after-ms=10]]"))
    retry = next(line for line in lines if line["event"] == "engine_retried")
    assert (retry["attempt"], retry["wait_ms"], retry["code"]) == (1, 10, "ENGINE_OVERLOADED")
    labels = {"engine": "ai", "provider": "retried", "outcome": "retried"}
    assert REGISTRY.get_sample_value("cozy_engine_calls_total", labels) == 1.0


def test_configuration_can_deny_what_an_engine_supports() -> None:
    able = OpenAICompatible("p", Provider(base_url="http://127.0.0.1/v1"))
    choice = ModelChoice(provider="p", model="m")
    engine = GuardedEngine(able, choice, Generation(), ModelTraits(supports_vision=False))
    assert (engine.supports_tools("m"), engine.supports_vision("m")) == (True, False)
