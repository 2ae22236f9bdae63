"""Coming back: to any gateway, with the last id one has, while the reply is under way or long after its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from tests.journeys.api import CHAT, LIMIT, Api, Event, Stream, Upstream, parse, request
from tests.journeys.gateways import Gateway, another_gateway
from tests.journeys.stack import KEY, Stack

SLOW = {"x-scripted-tokens": "40", "x-scripted-gap-ms": "60"}
LONG = {"x-scripted-tokens": "120", "x-scripted-gap-ms": "60"}
BROWSERS_WAIT = 3.0
"""Seconds until an EventSource whose stream has ended opens the next one."""


@pytest.fixture
async def other(stack: Stack, http: aiohttp.ClientSession) -> AsyncIterator[Gateway]:
    async with another_gateway(stack, http) as gateway:
        yield gateway


async def resume(http: aiohttp.ClientSession, url: str, turn_id: str, after: int = 0, key: str = KEY) -> Stream:
    """The rest of a reply, read to its end."""
    headers = {"authorization": f"Bearer {key}"} | ({"last-event-id": str(after)} if after else {})
    async with http.get(f"{url}/v1/turns/{turn_id}/stream", headers=headers, timeout=LIMIT) as answer:
        return Stream(answer.status, answer.headers, await answer.read(), 0)


def numbered(events: list[Event]) -> list[Event]:
    return [event for event in events if event.id is not None]


def whole_events(raw: bytes) -> list[Event]:
    """What has come of a stream that was cut anywhere."""
    return parse(raw[: raw.rindex(b"\n\n") + 2])


async def begin(
    http: aiohttp.ClientSession, url: str, said: str, events: int, pace: dict[str, str] = SLOW, **cozy: str
) -> list[Event]:
    """The first events of a streamed chat with usage, whose client is then gone."""
    body = {**request(said, cozy), "stream": True, "stream_options": {"include_usage": True}}
    headers = {"authorization": f"Bearer {KEY}", **pace}
    async with http.post(url + CHAT, json=body, headers=headers, timeout=LIMIT) as answer:
        raw = b""
        while raw.count(b"\n\n") < events:
            raw += await answer.content.readany()
        answer.close()
    return whole_events(raw)


async def test_killed_gateway_other_gateway_goes_on_where_the_stream_broke(
    stack: Stack, http: aiohttp.ClientSession, other: Gateway, upstream: Upstream, word: str
) -> None:
    body = {**request(f"Go on about {word}."), "stream": True, "stream_options": {"include_usage": True}}
    headers = {"authorization": f"Bearer {KEY}", **SLOW}
    got: list[bytes] = []

    async def read_and_kill() -> None:
        async with http.post(other.url + CHAT, json=body, headers=headers, timeout=LIMIT) as answer:
            while True:
                got.append(await answer.content.readany())
                if b"".join(got).count(b"\n\n") >= 8 and other.process.returncode is None:
                    await other.kill()

    with pytest.raises(aiohttp.ClientError):
        await read_and_kill()
    had = whole_events(b"".join(got))
    turn_id = had[0].data["cozy"]["turn_id"]
    rest = await resume(http, stack.url, turn_id, had[-1].id or 0)
    again = await resume(http, stack.url, turn_id)
    assert rest.whole
    assert numbered(had) + numbered(rest.events) == numbered(again.events)
    assert again.text == await upstream.says(await upstream.asked_once(word), 40)


async def test_the_openai_client_that_lost_its_gateway_reads_on_at_the_other(
    stack: Stack, http: aiohttp.ClientSession, other: Gateway, upstream: Upstream, word: str
) -> None:
    chunks: list[ChatCompletionChunk] = []

    async def read_and_kill() -> None:
        async with AsyncOpenAI(base_url=f"{other.url}/v1", api_key=KEY, max_retries=0, timeout=30) as client:
            said: list[Any] = [{"role": "user", "content": f"Go on about {word}."}]
            async for chunk in await client.chat.completions.create(
                model="cozy/default", messages=said, stream=True, extra_headers=SLOW
            ):
                chunks.append(chunk)
                if len(chunks) == 8:
                    await other.kill()

    with pytest.raises((openai.APIError, httpx.TransportError)):
        await read_and_kill()
    turn_id = (chunks[0].model_extra or {})["cozy"]["turn_id"]
    rest = await resume(http, stack.url, turn_id, len(chunks))
    assert rest.whole
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text + rest.text == await upstream.says(await upstream.asked_once(word), 40)


async def test_an_ended_turn_is_read_again_as_it_was_said(
    http: aiohttp.ClientSession, api: Api, other: Gateway, word: str
) -> None:
    first = await api.stream(f"Once, {word}.", stream_options={"include_usage": True}, n=2)
    turn_id = first.cozy["turn_id"]
    for url in (api.url, other.url):
        again = await resume(http, url, turn_id)
        assert numbered(again.events) == numbered(first.events)
        assert again.events[-1].data == "[DONE]"


async def test_two_devices_read_the_same_reply_at_once(
    http: aiohttp.ClientSession, api: Api, other: Gateway, word: str
) -> None:
    had = await begin(http, api.url, f"For two, {word}.", 5)
    turn_id = had[0].data["cozy"]["turn_id"]
    phone, laptop, late = await asyncio.gather(
        resume(http, api.url, turn_id), resume(http, other.url, turn_id), resume(http, other.url, turn_id, 5)
    )
    assert phone.whole
    assert laptop.whole
    assert numbered(phone.events) == numbered(laptop.events)
    assert numbered(phone.events)[5:] == numbered(late.events)


async def test_a_turn_that_used_our_tools_is_read_again_whole(http: aiohttp.ClientSession, api: Api) -> None:
    first = await api.stream("What time is it?", stream_options={"include_usage": True}, model="cozy/default")
    again = await resume(http, api.url, first.cozy["turn_id"])
    assert numbered(again.events) == numbered(first.events)


async def test_whose_turn_it_is_not_finds_none(http: aiohttp.ClientSession, api: Api, stranger: Api) -> None:
    turn_id = (await api.chat("Mine.")).body["cozy"]["turn_id"]
    for asked in (turn_id, turn_id[:-1], "nonsense"):
        found = await stranger.call("GET", f"/v1/turns/{asked}/stream")
        assert (found.status, found.error["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_a_draining_gateway_sends_its_resumed_readers_to_another(
    stack: Stack, http: aiohttp.ClientSession, other: Gateway, word: str
) -> None:
    had = await begin(http, stack.url, f"Elsewhere, {word}.", 4)
    turn_id, last = had[0].data["cozy"]["turn_id"], had[-1].id or 0
    reading = asyncio.create_task(resume(http, other.url, turn_id, last))
    await asyncio.wait((reading,), timeout=0.5)
    other.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(2):
        part = await reading
    assert not part.error
    so_far = numbered(had) + numbered(part.events)
    rest = await resume(http, stack.url, turn_id, so_far[-1].id or 0)
    assert rest.whole
    assert so_far + numbered(rest.events) == numbered((await resume(http, stack.url, turn_id)).events)


async def test_a_reply_that_is_to_end_with_its_client_waits_for_one_that_a_draining_gateway_sent_away(
    stack: Stack, http: aiohttp.ClientSession, other: Gateway, upstream: Upstream, word: str
) -> None:
    had = await begin(http, stack.url, f"Wait for me, {word}.", 4, LONG, on_disconnect="cancel")
    turn_id, last = had[0].data["cozy"]["turn_id"], had[-1].id or 0
    reading = asyncio.create_task(resume(http, other.url, turn_id, last))
    await asyncio.wait((reading,), timeout=0.5)
    other.process.send_signal(signal.SIGTERM)
    part = await reading
    await asyncio.sleep(BROWSERS_WAIT)
    rest = await resume(http, stack.url, turn_id, (numbered(part.events) or had)[-1].id or 0)
    assert rest.whole
    text = "".join(stream.text for stream in (part, rest))
    assert (await upstream.says(await upstream.asked_once(word), 120)).endswith(text)
