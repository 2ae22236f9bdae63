"""Stop: from any device, wherever the turn stands; its words are kept, and the session goes on at once."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from tests.journeys.api import CHAT, Api, Stream, request
from tests.journeys.canaries import Canaries
from tests.journeys.stack import Stack, until

SLOW = {"x-scripted-tokens": "400", "x-scripted-gap-ms": "25"}
"""Ten seconds of a reply: nobody waits for its end."""
AT_ONCE = 1.0
STOPS = 20
AMONG_MANY = 2.5
"""Seconds in which each of so many stops at the same time is acknowledged."""


class Heard:
    """A stream that was begun, and the turn it belongs to."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.turn_id = answer.headers["location"].rpartition("/")[2]
        self._answer, self._raw = answer, b""

    async def until_said(self, count: int) -> None:
        """Wait for so many events."""
        while self._raw.count(b"\n\n") < count:
            self._raw += await self._answer.content.readany()

    async def rest(self) -> Stream:
        """The whole stream, once it has ended."""
        raw = self._raw + await self._answer.read()
        return Stream(self._answer.status, self._answer.headers, raw, 0)


async def begin(api: Api, said: str, session_id: str | None = None, **headers: str) -> Heard:
    """Ask for a long reply, and come back with the headers of the answer."""
    body = {**request(said, {"session_id": session_id} if session_id else None), "stream": True}
    body["stream_options"] = {"include_usage": True}
    sent = {"authorization": f"Bearer {api.key}", **SLOW, **headers}
    return Heard(await api._http.post(api.url + CHAT, json=body, headers=sent))


async def stop(api: Api, turn_id: str, within: float = AT_ONCE) -> dict[str, Any]:
    """Say stop; the turn as it then stood."""
    began = time.monotonic()
    answer = await api.call("POST", f"/v1/turns/{turn_id}/cancel")
    assert (answer.status, answer.body["object"], answer.body["id"]) == (202, "chat.turn", turn_id)
    assert time.monotonic() - began < within
    turn: dict[str, Any] = answer.body
    return turn


def assert_stopped(stream: Stream) -> None:
    """It ended as a stopped reply ends: in good order, and marked."""
    assert stream.whole, stream.raw[-600:]
    assert stream.finish_reasons == ["stop"]
    assert [chunk["cozy"] for chunk in stream.chunks if "cozy" in chunk][-1] == {"state": "cancelled", "stopped": True}
    assert stream.chunks[-1]["usage"]["total_tokens"] >= stream.chunks[-1]["usage"]["completion_tokens"]


async def closed_early(http: aiohttp.ClientSession, stack: Stack, word: str) -> bool:
    """Whether the model's stream about this word was closed before its end."""
    async with http.get(stack.entry("scripted").url + "/scripted/requests?limit=1000") as answer:
        asked = (await answer.json())["data"]
    return any(record["closed_early"] for record in asked if word in str(record["body"]))


async def test_a_stock_client_s_reply_ends_in_good_order_when_another_device_says_stop(
    client: AsyncOpenAI, api: Api, stack: Stack, http: aiohttp.ClientSession, word: str
) -> None:
    session_id = await api.session()
    stream = await client.chat.completions.create(
        model="cozy/default",
        messages=[{"role": "user", "content": f"Tell me of {word}."}],
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=SLOW,
        extra_body={"cozy": {"session_id": session_id}},
    )
    chunks: list[Any] = []
    async for chunk in stream:
        chunks.append(chunk)
        if len(chunks) == 10:
            await stop(api, chunks[0].cozy["turn_id"])

            async def closed() -> bool:
                return await closed_early(http, stack, word)

            await until(closed, AT_ONCE, lambda: "the model goes on")
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["stop"]
    assert chunks[-2].cozy == {"state": "cancelled", "stopped": True}
    assert chunks[-1].usage.completion_tokens < 100
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    turn = (await api.call("GET", f"/v1/turns/{chunks[0].cozy['turn_id']}")).body
    assert (turn["state"], turn["error"]) == ("cancelled", None)
    reply = (await api.messages(session_id))[-1]
    assert (reply["content"], reply["metadata"]["state"]) == (said, "cancelled")
    began = time.monotonic()
    assert (await api.chat("And now?", cozy={"session_id": session_id})).status == 200
    assert time.monotonic() - began < AT_ONCE


async def test_a_whole_answer_has_the_words_so_far(api: Api, stack: Stack, word: str) -> None:
    session_id = await api.session()
    asking = asyncio.create_task(api.chat(f"Tell me of {word}.", cozy={"session_id": session_id}, headers=SLOW))
    turn_id = ""

    async def begun() -> bool:
        nonlocal turn_id
        partial = [message for message in await api.messages(session_id) if message["role"] == "assistant"]
        turn_id = partial[0]["turn_id"] if partial else ""
        return bool(turn_id)

    await until(begun, 10, lambda: "nothing was said")
    await stop(api, turn_id)
    answer = await asking
    assert answer.text == await api.stored_reply(session_id) != ""
    assert answer.body["choices"][0]["finish_reason"] == "stop"
    assert (answer.body["cozy"]["state"], answer.body["cozy"]["stopped"]) == ("cancelled", True)


async def test_a_turn_that_waits_for_another_is_stopped_and_the_other_is_not(api: Api, word: str) -> None:
    session_id = await api.session()
    first = await begin(api, f"First {word}", session_id, **{"x-scripted-tokens": "160"})
    second = await begin(api, f"Second {word}", session_id)
    assert (await stop(api, second.turn_id))["state"] == "cancelled"
    stream = await second.rest()
    assert_stopped(stream)
    assert stream.text == ""
    whole = await first.rest()
    assert whole.whole
    assert whole.chunks[-1]["usage"]["completion_tokens"] == 160


async def test_a_turn_that_has_ended_stays_as_it_is_and_another_s_cannot_be_stopped(api: Api, stranger: Api) -> None:
    ended = (await api.chat("Hello.")).body["cozy"]["turn_id"]
    assert (await stop(api, ended))["state"] == "completed"
    running = await begin(api, "Go on.")
    answer = await stranger.call("POST", f"/v1/turns/{running.turn_id}/cancel")
    assert (answer.status, answer.error["code"]) == (404, "RESOURCE_NOT_FOUND")
    await running.until_said(5)
    for _ in range(3):
        await stop(api, running.turn_id)
    assert_stopped(await running.rest())
    assert (await stop(api, running.turn_id))["state"] == "cancelled"


async def test_whenever_it_is_said_what_was_heard_is_what_is_stored(api: Api) -> None:
    chance = random.Random(7)

    async def one(delay: float, tool: bool) -> None:
        session_id = await api.session()
        calls = {"x-scripted-call": 'clock {"timezone": "UTC"}'} if tool else {}
        heard = await begin(api, "Go on.", session_id, **{"x-scripted-gap-ms": "10"}, **calls)
        await asyncio.sleep(delay)
        await stop(api, heard.turn_id, AMONG_MANY)
        stream = await heard.rest()
        assert_stopped(stream)
        replies = [each["content"] for each in await api.messages(session_id) if each["role"] == "assistant"]
        assert "".join(reply or "" for reply in replies) == stream.text

    await asyncio.gather(*(one(chance.random() * 1.5, bool(number % 3)) for number in range(STOPS)))


@pytest.fixture
async def well(stack: Stack) -> AsyncIterator[None]:
    """It is left as it was found: all there, all answering."""
    yield
    await stack.until_well()


@pytest.mark.usefixtures("well")
async def test_the_turns_of_a_frozen_worker_are_ended_by_another(stack: Stack, api: Api, canaries: Canaries) -> None:
    sessions = [await api.session() for _ in range(6)]
    heard = [await begin(api, f"Tell me of {canaries.word()}.", session_id) for session_id in sessions]
    await asyncio.gather(*(each.until_said(5) for each in heard))
    stack.signal("generation", signal.SIGSTOP)
    try:
        await asyncio.gather(*(stop(api, each.turn_id) for each in heard))
        async with asyncio.timeout(8):
            streams = [await each.rest() for each in heard]
    finally:
        stack.signal("generation", signal.SIGCONT)
    for stream, session_id in zip(streams, sessions, strict=True):
        assert_stopped(stream)
        assert await api.stored_reply(session_id) == stream.text
