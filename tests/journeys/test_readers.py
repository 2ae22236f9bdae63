"""Readers as they are: slow, many, and gone before the end. None of them changes what is said or stored."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.journeys.api import CHAT, LIMIT, Api, Stream, Upstream, request
from tests.journeys.canaries import Canaries
from tests.journeys.stack import until

MANY = 20_000
"""Tokens: far more than any buffer on the way holds for one reader."""


async def test_a_reader_that_pauses_misses_nothing(
    api: Api, http: aiohttp.ClientSession, upstream: Upstream, word: str
) -> None:
    body = {**request(f"Tell me all of {word}."), "stream": True}
    headers = {"authorization": f"Bearer {api.key}", "x-scripted-tokens": str(MANY)}
    async with http.post(api.url + CHAT, json=body, headers=headers, timeout=LIMIT) as answer:
        raw = await answer.content.readany()
        await asyncio.sleep(1.5)
        raw += await answer.read()
    stream = Stream(answer.status, answer.headers, raw, 0)
    assert stream.whole
    assert stream.text == await upstream.says(await upstream.asked_once(word), MANY)


async def test_a_long_reply_is_stored_whole(api: Api) -> None:
    session_id = await api.session()
    answer = await api.chat("A novel.", cozy={"session_id": session_id}, headers={"x-scripted-tokens": str(MANY)})
    assert answer.body["usage"]["completion_tokens"] == MANY
    assert await api.stored_reply(session_id) == answer.text


async def test_many_readers_at_once_hear_each_their_own(api: Api, upstream: Upstream, canaries: Canaries) -> None:
    words = [canaries.word() for _ in range(60)]
    paced = {"x-scripted-tokens": "12", "x-scripted-gap-ms": "40"}
    streams = await asyncio.gather(*(api.stream(f"Tell me of {word}.", headers=paced) for word in words))
    for word, stream in zip(words, streams, strict=True):
        assert stream.whole
        assert stream.text == await upstream.says(await upstream.asked_once(word), 12)


async def test_a_reader_that_leaves_does_not_stop_the_reply(
    api: Api, http: aiohttp.ClientSession, upstream: Upstream, word: str
) -> None:
    session_id = await api.session()
    body = {**request(f"Go on without me, {word}.", {"session_id": session_id}), "stream": True}
    paced = {"authorization": f"Bearer {api.key}", "x-scripted-tokens": "12", "x-scripted-gap-ms": "60"}
    async with http.post(api.url + CHAT, json=body, headers=paced, timeout=LIMIT) as answer:
        await answer.content.readany()
        answer.close()

    async def stored() -> bool:
        *_, last = await api.messages(session_id)
        return last["role"] == "assistant" and "partial" not in last["metadata"]

    await until(stored, 5, lambda: "the reply was never stored")
    assert await api.stored_reply(session_id) == await upstream.says(await upstream.asked_once(word), 12)
