"""Processes killed while people talk: every reply ends whole, equal to what is stored, and the process comes back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from tests.journeys.api import Api, Stream, Upstream
from tests.journeys.canaries import Canaries
from tests.journeys.stack import Stack, until

CHATS, TOKENS, GAP_MS = 10, 36, 50
STAGGER = 0.15
"""Seconds between two chats' beginnings, so that a fault finds them at every step of their way."""
FAULT_AFTER = 0.8

pytestmark = pytest.mark.usefixtures("well")


class Talk(NamedTuple):
    """One chat in a session of its own, heard to its end."""

    word: str
    session_id: str
    stream: Stream


Fault = Callable[[], Awaitable[None]]


@pytest.fixture
async def well(stack: Stack) -> AsyncIterator[None]:
    """Every test leaves the system as it found it: all there, all answering."""
    yield
    await stack.until_well()


async def talk(api: Api, word: str, delay: float, **controls: str) -> Talk:
    session_id = await api.session()
    await asyncio.sleep(delay)
    headers = {"x-scripted-tokens": str(TOKENS), "x-scripted-gap-ms": str(GAP_MS), **controls}
    usage = {"include_usage": True}
    stream = await api.stream(
        f"Tell me of {word}.", cozy={"session_id": session_id}, headers=headers, stream_options=usage
    )
    return Talk(word, session_id, stream)


async def talks_through(api: Api, canaries: Canaries, fault: Fault, **controls: str) -> list[Talk]:
    """Chats that begin one after the other, and what happens to them when `fault` does."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(talk(api, canaries.word(), number * STAGGER, **controls)) for number in range(CHATS)
        ]
        await asyncio.sleep(FAULT_AFTER)
        await fault()
    return [task.result() for task in tasks]


async def assert_whole(api: Api, upstream: Upstream, talks: list[Talk]) -> None:
    """Every reply ended, is what the model says undisturbed, was counted, and is stored byte for byte."""
    for word, session_id, stream in talks:
        assert stream.whole, (stream.status, stream.raw[-600:])
        undisturbed = await upstream.says((await upstream.asked(word))[-1], TOKENS)
        assert stream.text == undisturbed
        assert stream.chunks[-1]["usage"]["completion_tokens"] == TOKENS
        assert await api.stored_reply(session_id) == stream.text
        ids = [event.id for event in stream.events if event.id is not None]
        assert ids == list(range(1, len(ids) + 1))


def killing(stack: Stack, name: str) -> Fault:
    async def kill() -> None:
        before = stack.signal(name, signal.SIGKILL)
        await stack.until_restarted(before)

    return kill


@pytest.mark.parametrize("stage", ["context_fetch", "generation", "memory_writeback", "records", "nats", "postgres"])
async def test_no_reply_is_lost_or_changed_when_a_process_is_killed(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries, stage: str
) -> None:
    talks = await talks_through(api, canaries, killing(stack, stage))
    await assert_whole(api, upstream, talks)


async def test_a_client_hears_that_another_worker_goes_on(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    talks = await talks_through(api, canaries, killing(stack, "generation"))
    taken_over = [one for one in talks if any("attempts" in chunk.get("cozy", {}) for chunk in one.stream.chunks[1:])]
    assert taken_over
    turn = (await api.call("GET", f"/v1/turns/{taken_over[0].stream.cozy['turn_id']}")).body
    assert (turn["state"], turn["attempts"]) == ("completed", 2)


async def test_no_reply_is_lost_when_the_tools_worker_is_killed(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    clock = {"x-scripted-call": "clock {}"}
    talks = await talks_through(api, canaries, killing(stack, "tool_execution"), **clock)
    await assert_whole(api, upstream, talks)
    for asked, said, told, _ in [await api.messages(one.session_id) for one in talks]:
        assert [message["role"] for message in (asked, said, told)] == ["user", "assistant", "tool"]
