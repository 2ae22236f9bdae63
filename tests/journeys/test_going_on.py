"""A reply goes on where its model server or its worker left it, however its model begins anew."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.journeys.api import Api, Stream, Upstream
from tests.journeys.stack import Stack

TOKENS, GAP_MS, CUT_AFTER = 40, 30, 15
SEAMS = ("none", "preamble", "repeat", "reword", "midword")
ASKED_IN_WORDS = "scripted-small"


async def told(api: Api, word: str, model: str, session_id: str, **controls: object) -> Stream:
    """A reply of a model, with these troubles on its way."""
    wished = {"tokens": TOKENS, "gap-ms": GAP_MS, **{name.replace("_", "-"): value for name, value in controls.items()}}
    headers = {f"x-scripted-{name}": str(value) for name, value in wished.items()}
    asked = {"model": model, "cozy": {"session_id": session_id}, "stream_options": {"include_usage": True}}
    return await api.stream(f"Tell me of {word}.", headers=headers, **asked)


async def assert_undisturbed(api: Api, upstream: Upstream, word: str, session_id: str, stream: Stream) -> None:
    """The reply is what the model says undisturbed, is counted so, and is stored byte for byte."""
    assert stream.whole, stream.raw[-600:]
    first = (await upstream.asked(word))[0]
    assert stream.text == await upstream.says(first, TOKENS)
    assert await api.stored_reply(session_id) == stream.text
    assert stream.chunks[-1]["usage"]["completion_tokens"] == TOKENS
    ids = [event.id for event in stream.events if event.id is not None]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("how", ["cut", "malformed", "hang"])
@pytest.mark.parametrize("model", ["scripted", ASKED_IN_WORDS])
async def test_a_model_server_that_breaks_off_once_is_not_noticed(
    api: Api, upstream: Upstream, word: str, how: str, model: str
) -> None:
    session_id = await api.session()
    failing = {"fail": how, "fail_after": CUT_AFTER, "fail_times": 1, "fail_key": word}
    stream = await told(api, word, model, session_id, **failing)
    assert len(await upstream.asked(word)) == 2
    await assert_undisturbed(api, upstream, word, session_id, stream)
    assert "attempts" not in str(stream.chunks[1:])


@pytest.mark.parametrize("seam", SEAMS)
async def test_whatever_a_model_opens_with_when_it_goes_on_is_not_seen(
    api: Api, upstream: Upstream, word: str, seam: str
) -> None:
    session_id = await api.session()
    failing = {"fail": "cut", "fail_after": CUT_AFTER, "fail_times": 2, "fail_key": word, "seam": seam}
    stream = await told(api, word, ASKED_IN_WORDS, session_id, **failing)
    assert len(await upstream.asked(word)) == 3
    await assert_undisturbed(api, upstream, word, session_id, stream)


async def test_a_killed_worker_s_replies_go_on_in_every_way_a_model_may_begin_anew(
    stack: Stack, api: Api, upstream: Upstream
) -> None:
    words = [f"{seam}{number}" for seam in SEAMS for number in range(2)]
    sessions = [await api.session() for _ in words]
    talks = [
        asyncio.create_task(told(api, word, ASKED_IN_WORDS, session_id, seam=word[:-1]))
        for word, session_id in zip(words, sessions, strict=True)
    ]
    await asyncio.sleep(CUT_AFTER * GAP_MS / 1000)
    before = [stack.signal(name, signal.SIGKILL) for name in ("generation", "generation.2")]
    streams = await asyncio.gather(*talks)
    await asyncio.gather(*map(stack.until_restarted, before))
    for word, session_id, stream in zip(words, sessions, streams, strict=True):
        await assert_undisturbed(api, upstream, word, session_id, stream)
        assert {"attempts": 2} in [chunk.get("cozy") for chunk in stream.chunks[1:]]
    await stack.until_well()
