"""A model server that refuses, fails, breaks off or falls silent: told in time, with the right status."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.journeys.api import Answer, Api, Upstream
from tests.journeys.canaries import Canaries

IDLE, FIRST = 2.0, 4.0
"""Seconds of silence that the stack under test allows within a reply, and before it."""
SLACK = 2.0


def fails(how: object, **more: object) -> dict[str, str]:
    """Controls that make the model server fail, asking for next to no patience."""
    controls = {"fail": how, "retry_after_ms": 50, **more}
    return {f"x-scripted-{name.replace('_', '-')}": str(value) for name, value in controls.items()}


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (401, 502, "ENGINE_REFUSED"),
        (400, 502, "ENGINE_REFUSED"),
        (429, 503, "ENGINE_OVERLOADED"),
        (503, 503, "ENGINE_OVERLOADED"),
        (500, 502, "ENGINE_FAILED"),
    ],
)
async def test_an_error_of_the_model_server_has_our_status(api: Api, status: int, ours: int, code: str) -> None:
    answer = await api.chat(f"Fail with {status}.", headers=fails(status))
    assert (answer.status, answer.error["code"]) == (ours, code)
    assert answer.error["type"] == "server_error"


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_before_the_first_word_a_stream_fails_with_a_status_too(api: Api, status: int) -> None:
    stream = await api.stream(f"Fail early with {status}.", headers=fails(status))
    assert stream.status == {401: 502, 429: 503, 500: 502}[status]
    assert stream.header_seconds < 3


async def test_an_overloaded_model_server_says_when_to_come_back(api: Api) -> None:
    answer = await api.chat("Later.", headers=fails(429))
    assert int(answer.headers["retry-after"]) >= 1
    assert "x-should-retry" not in answer.headers


async def test_a_refusal_is_not_worth_another_try(api: Api, upstream: Upstream, word: str) -> None:
    answer = await api.chat(f"Refuse {word}.", headers=fails(401))
    assert answer.headers["x-should-retry"] == "false"
    await upstream.asked_once(word)


async def test_a_failure_that_passes_is_not_seen(api: Api, upstream: Upstream, word: str) -> None:
    answer = await api.chat(f"Fail {word}.", headers=fails(500, fail_times=2, fail_key=word))
    assert answer.status == 200
    assert len(await upstream.asked(word)) == 3


async def test_a_failed_turn_says_why(api: Api) -> None:
    session_id = await api.session()
    await api.chat("Refuse.", headers=fails(401), cozy={"session_id": session_id})
    [asked] = await api.messages(session_id)
    turn = (await api.call("GET", f"/v1/turns/{asked['turn_id']}")).body
    assert (turn["state"], turn["error"]["code"]) == ("failed", "ENGINE_REFUSED")


async def test_a_session_goes_on_after_a_failure(api: Api) -> None:
    session_id = await api.session()
    await api.chat("Refuse.", headers=fails(401), cozy={"session_id": session_id})
    answer = await api.chat("And now?", cozy={"session_id": session_id})
    assert 'You said: "And now?"' in answer.text


@pytest.mark.parametrize(
    ("how", "code"), [("cut", "ENGINE_FAILED"), ("malformed", "ENGINE_FAILED"), ("hang", "ENGINE_TIMEOUT")]
)
async def test_a_reply_that_breaks_in_the_middle_says_so_and_keeps_its_words(api: Api, how: str, code: str) -> None:
    session_id = await api.session()
    stream = await api.stream("Break.", headers=fails(how, fail_after=5), cozy={"session_id": session_id})
    assert stream.error is not None
    assert stream.error["code"] == code
    assert stream.finish_reasons == []
    assert stream.text
    assert await api.stored_reply(session_id) == stream.text


@pytest.mark.parametrize("how", ["cut", "malformed"])
async def test_a_whole_reply_that_breaks_has_a_status(api: Api, how: str) -> None:
    answer = await api.chat("Break.", headers=fails(how, fail_after=5))
    assert (answer.status, answer.error["code"]) == (502, "ENGINE_FAILED")


async def test_silence_in_the_middle_is_borne_twice_and_ends_within_its_limit(api: Api) -> None:
    began = time.monotonic()
    whole, streamed = await asyncio.gather(
        api.chat("Hang.", headers=fails("hang", fail_after=2)),
        api.stream("Hang, streaming.", headers=fails("hang", fail_after=2)),
    )
    assert 2 * IDLE <= time.monotonic() - began < 2 * IDLE + SLACK
    assert (whole.status, whole.error["code"]) == (504, "ENGINE_TIMEOUT")
    assert streamed.error is not None


async def test_silence_from_the_start_ends_within_its_limit(api: Api) -> None:
    began = time.monotonic()
    whole, streamed = await asyncio.gather(
        api.chat("Hang.", headers=fails("hang", fail_after=0)),
        api.stream("Hang, streaming.", headers=fails("hang", fail_after=0)),
    )
    assert FIRST <= time.monotonic() - began < FIRST + SLACK
    assert (whole.status, whole.error["code"]) == (504, "ENGINE_TIMEOUT")
    assert streamed.error is not None
    assert streamed.error["code"] == "ENGINE_TIMEOUT"


async def test_a_slow_first_word_holds_the_headers_two_seconds_at_most(api: Api) -> None:
    slow = {"x-scripted-ttft-ms": "3000", "x-scripted-tokens": "5"}
    stream = await api.stream("No hurry.", headers=slow)
    assert 1.5 < stream.header_seconds < 2.8
    assert stream.whole
    assert len(stream.text.split()) >= 4


async def test_a_quick_first_word_does_not_wait(api: Api) -> None:
    stream = await api.stream("Quick.", headers={"x-scripted-tokens": "5", "x-scripted-gap-ms": "100"})
    assert stream.header_seconds < 0.4


async def test_an_emoji_split_over_two_chunks_arrives_whole(api: Api) -> None:
    session_id = await api.session()
    split = {"x-scripted-tokens": "60", "x-scripted-split-utf8": "1"}
    stream = await api.stream("Split.", headers=split, cozy={"session_id": session_id})
    unsplit = await api.stream("Split.", headers={"x-scripted-tokens": "60"}, cozy={"personality_id": "default"})
    assert stream.text == unsplit.text == await api.stored_reply(session_id)
    assert any(character in stream.text for character in "🌲雪é")


async def test_a_model_server_without_usage_is_counted_for(api: Api) -> None:
    answer = await api.chat("Count.", headers={"x-scripted-usage": "none", "x-scripted-tokens": "9"})
    assert answer.body["usage"]["completion_tokens"] == 9
    assert answer.body["usage"]["prompt_tokens"] > 0


async def test_what_the_model_server_says_of_an_error_is_no_message_of_ours(api: Api) -> None:
    answer = await api.chat("Refuse.", headers=fails(401))
    assert "Scripted failure" not in answer.error["message"]
    assert "scripted" not in str(answer.error["details"].get("message"))


async def test_failures_beside_each_other_do_not_touch_other_replies(api: Api, canaries: Canaries) -> None:
    async def one(number: int) -> Answer:
        how: Any = fails(("cut", "malformed", 401)[number % 3]) if number % 2 else {}
        return await api.chat(f"Number {number} {canaries.word()}.", headers=how)

    answers = await asyncio.gather(*(one(number) for number in range(12)))
    assert [answer.status == 200 for answer in answers] == [True, False] * 6
