"""Several messages to one session at the same time, through two gateways: whoever came first is answered first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.journeys.api import Answer, Api, Upstream
from tests.journeys.gateways import another_gateway
from tests.journeys.stack import Stack, until

SLOW = {"x-scripted-tokens": "20", "x-scripted-gap-ms": "50"}
ENDLESS = {"x-scripted-tokens": "1000", "x-scripted-gap-ms": "50"}
WITHIN = 0.03
"""Seconds from one message to the next: three of them come within 100 ms."""


@pytest.fixture
async def gateways(stack: Stack, http: aiohttp.ClientSession, api: Api) -> AsyncIterator[list[Api]]:
    """The caller at each of two gateways."""
    async with another_gateway(stack, http) as other:
        yield [api, Api(http, other.url, api.key)]


async def three(gateways: list[Api], session_id: str, word: str, on_busy: str) -> list[Answer]:
    """Three messages, to one gateway and the other in turn."""
    asked = []
    for number in range(3):
        api = gateways[number % 2]
        cozy = {"session_id": session_id, "on_busy": on_busy}
        asked.append(asyncio.create_task(api.chat(f"{number} {word}", cozy=cozy, headers=SLOW)))
        await asyncio.sleep(WITHIN)
    return await asyncio.gather(*asked)


async def test_messages_that_queue_are_answered_in_the_order_of_their_acceptance(
    gateways: list[Api], upstream: Upstream, word: str
) -> None:
    session_id = await gateways[0].session()
    answers = await three(gateways, session_id, word, "queue")
    assert {answer.status for answer in answers} == {200}
    stored = await gateways[1].messages(session_id)
    assert [message["role"] for message in stored] == ["user", "assistant"] * 3
    assert [message["turn_id"] for message in stored[::2]] == [message["turn_id"] for message in stored[1::2]]
    texts = {answer.body["cozy"]["turn_id"]: answer.text for answer in answers}
    assert [message["content"] for message in stored[1::2]] == [texts[message["turn_id"]] for message in stored[::2]]
    assert [message["content"] for message in stored[::2]] == [f"{number} {word}" for number in range(3)]
    said = [message["content"] for message in stored]
    heard = [_heard(asked) for asked in await upstream.asked(word)]
    assert heard == [said[:1], said[:3], said[:5]], "each model heard what came before, and nothing that still waited"


async def test_a_message_that_interrupts_ends_what_came_before_it_and_is_next(
    gateways: list[Api], upstream: Upstream, word: str
) -> None:
    session_id = await gateways[0].session()
    first = asyncio.create_task(gateways[0].chat(f"0 {word}", cozy={"session_id": session_id}, headers=ENDLESS))
    await until(lambda: _asked(upstream, word), 5, lambda: "never asked")
    second = asyncio.create_task(gateways[1].chat(f"1 {word}", cozy={"session_id": session_id}, headers=ENDLESS))
    await until(lambda: _has(gateways[0], session_id, 2), 5, lambda: "never accepted")
    third = await gateways[0].chat(f"2 {word}", cozy={"session_id": session_id, "on_busy": "interrupt"})
    assert third.status == 200
    before = await asyncio.gather(first, second)
    assert [answer.body["cozy"].get("state") for answer in before] == ["cancelled", "cancelled"]
    stored = await gateways[0].messages(session_id)
    assert [stored[-2]["content"], stored[-1]["content"]] == [f"2 {word}", third.text]
    assert len(await upstream.asked(word)) == 2, "the second was never asked of the model"


async def test_a_message_that_must_not_wait_is_refused_at_either_gateway(gateways: list[Api], word: str) -> None:
    session_id = await gateways[0].session()
    answers = await three(gateways, session_id, word, "reject")
    assert sorted(answer.status for answer in answers) == [200, 409, 409]
    refused = next(answer for answer in answers if answer.status == 409)
    assert (refused.error["code"], refused.headers["x-should-retry"]) == ("RESOURCE_SESSION_BUSY", "false")
    assert len(await gateways[0].messages(session_id)) == 2


def _heard(asked: dict[str, Any]) -> list[str]:
    return [message["content"] for message in asked["messages"] if message["role"] != "system"]


async def _asked(upstream: Upstream, word: str) -> bool:
    return bool(await upstream.asked(word))


async def _has(api: Api, session_id: str, messages: int) -> bool:
    return len(await api.messages(session_id)) >= messages
