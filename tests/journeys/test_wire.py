"""The wire, byte for byte: what a client that follows the specification to the letter gets to see."""

from __future__ import annotations

from typing import Any

import pytest

from tests.journeys.api import Api, Stream

PACED = {"x-scripted-tokens": "6", "x-scripted-gap-ms": "20"}
SILENT = {"x-scripted-tokens": "3", "x-scripted-gap-ms": "1300"}
WITH_USAGE = {"include_usage": True}


@pytest.fixture(scope="module")
async def streamed(api: Api) -> Stream:
    """A plain stream without a wish for usage."""
    return await api.stream("A stream to look at.", headers=PACED)


@pytest.fixture(scope="module")
async def counted(api: Api) -> Stream:
    """A stream that was asked for its usage."""
    return await api.stream("A stream to count.", headers=PACED, stream_options=WITH_USAGE)


def choices(stream: Stream) -> list[dict[str, Any]]:
    return [choice for chunk in stream.chunks for choice in chunk["choices"]]


def test_the_headers_let_no_proxy_hold_a_stream_back(streamed: Stream) -> None:
    headers = streamed.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers


def test_the_headers_name_the_turn(streamed: Stream) -> None:
    assert streamed.headers["location"] == f"/v1/turns/{streamed.cozy['turn_id']}"


def test_every_chunk_has_the_same_id_date_and_model(streamed: Stream) -> None:
    heads = {(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in streamed.chunks}
    [(id_, _, model, kind)] = heads
    assert id_ == f"chatcmpl-{streamed.cozy['turn_id']}"
    assert (model, kind) == ("cozy/default", "chat.completion.chunk")


def test_event_ids_are_dense_from_1(streamed: Stream) -> None:
    ids = [event.id for event in streamed.events if event.id is not None]
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) == len(streamed.chunks)


def test_the_role_comes_first_and_once(streamed: Stream) -> None:
    assert streamed.deltas[0] == {"role": "assistant", "content": ""}
    assert [delta for delta in streamed.deltas[1:] if "role" in delta] == []


def test_the_finish_reason_comes_last_with_an_empty_delta(streamed: Stream) -> None:
    assert [choice["finish_reason"] for choice in choices(streamed)[:-1]] == [None] * (len(choices(streamed)) - 1)
    last = choices(streamed)[-1]
    assert (last["finish_reason"], last["delta"]) == ("stop", {})


def test_the_stream_ends_with_done(streamed: Stream) -> None:
    assert streamed.raw.endswith(b"data: [DONE]\n\n")
    assert streamed.raw.count(b"[DONE]") == 1


def test_usage_that_was_not_asked_for_is_not_mentioned(streamed: Stream) -> None:
    assert [chunk for chunk in streamed.chunks if "usage" in chunk] == []


def test_usage_that_was_asked_for_is_the_last_chunk_and_null_before(counted: Stream) -> None:
    *before, last = counted.chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    assert [chunk["usage"] for chunk in before] == [None] * len(before)


def test_what_is_ours_stays_at_the_top_of_the_first_chunk(streamed: Stream) -> None:
    assert set(streamed.cozy) == {"turn_id", "session_id", "personality_id"}
    assert [chunk for chunk in streamed.chunks[1:] if "cozy" in chunk] == []
    assert set().union(*streamed.deltas) == {"role", "content"}


async def test_silence_is_filled_with_heartbeats_that_no_client_takes_for_an_event(api: Api) -> None:
    stream = await api.stream("A slow one.", headers=SILENT)
    assert stream.raw.count(b": ping\n") >= 2
    assert b": ping\n\n" not in stream.raw
    assert stream.whole


async def test_a_whole_answer_has_the_shape_of_openai(api: Api) -> None:
    answer = await api.chat("A whole one.", headers={"x-scripted-tokens": "3"})
    body = answer.body
    assert {"id", "object", "created", "model", "choices", "usage", "cozy"} == set(body)
    assert body["object"] == "chat.completion"
    [choice] = body["choices"]
    assert set(choice) == {"index", "message", "finish_reason", "logprobs"}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert (choice["message"]["role"], choice["message"]["refusal"]) == ("assistant", None)


async def test_a_whole_answer_names_its_turn_and_counts_its_tokens(api: Api) -> None:
    answer = await api.chat("A counted one.", headers={"x-scripted-tokens": "3"})
    turn_id, usage = answer.body["cozy"]["turn_id"], answer.body["usage"]
    assert answer.body["id"] == f"chatcmpl-{turn_id}"
    assert answer.headers["location"] == f"/v1/turns/{turn_id}"
    assert usage["completion_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3


async def test_the_callers_request_id_comes_back(api: Api) -> None:
    answer = await api.call("GET", "/v1/models", headers={"x-request-id": "a-callers-own.id"})
    assert answer.headers["x-request-id"] == "a-callers-own.id"


async def test_every_answer_has_a_request_id_and_an_error_repeats_it(api: Api) -> None:
    good, bad = await api.chat("Hello."), await api.call("GET", "/v1/nothing")
    assert good.headers["x-request-id"] != bad.headers["x-request-id"]
    assert bad.error["request_id"] == bad.headers["x-request-id"]


async def test_a_stream_of_a_failed_reply_says_so_and_ends(api: Api) -> None:
    stream = await api.stream("Break.", headers={"x-scripted-fail": "cut", "x-scripted-fail-after": "2"})
    assert stream.status == 200
    assert stream.error is not None
    assert stream.error["code"] == "ENGINE_FAILED"
    assert b"[DONE]" not in stream.raw
