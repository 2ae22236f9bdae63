"""Processes killed while people talk: every reply ends whole, equal to what is stored, and the process comes back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.journeys.api import Api, Stream, Upstream
from tests.journeys.canaries import Canaries
from tests.journeys.stack import Stack, until

CHATS, TOKENS, GAP_MS = 10, 36, 40
STAGGER = 0.12
"""Seconds between two chats' beginnings, so that a fault finds them at every step of their way."""
FAULT_AFTER = 0.8
STAGES = ("context_fetch", "generation", "tool_execution", "memory_writeback", "records")
FROZEN = 5.0
TOKENS_OF_A_CALL = 2

pytestmark = pytest.mark.usefixtures("well")


class Talk(NamedTuple):
    """One chat in a session of its own, heard to its end."""

    word: str
    session_id: str
    stream: Stream


Fault = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
async def well(stack: Stack) -> AsyncIterator[None]:
    """Every test leaves the system as it found it: all there, all answering."""
    yield
    await stack.until_well()


async def talk(api: Api, word: str, delay: float, call: str = "", **more: Any) -> Talk:
    session_id = await api.session()
    await asyncio.sleep(delay)
    headers = {"x-scripted-tokens": str(TOKENS), "x-scripted-gap-ms": str(GAP_MS), "x-scripted-call": call}
    asked = {"cozy": {"session_id": session_id}, "stream_options": {"include_usage": True}, **more}
    return Talk(word, session_id, await api.stream(f"Tell me of {word}.", headers=headers, **asked))


async def talks_through(api: Api, canaries: Canaries, fault: Fault, call: str = "") -> list[Talk]:
    """Chats that begin one after the other, and what happens to them when `fault` does."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(talk(api, canaries.word(), number * STAGGER, call)) for number in range(CHATS)]
        await asyncio.sleep(FAULT_AFTER)
        await fault()
    return [task.result() for task in tasks]


async def assert_whole(api: Api, upstream: Upstream, talks: list[Talk], tokens: int = TOKENS) -> None:
    """Every reply ended, is what the model says undisturbed, was counted, and is stored byte for byte."""
    for word, session_id, stream in talks:
        assert stream.whole, (stream.status, stream.raw[-600:])
        undisturbed = await upstream.says((await upstream.asked(word))[-1], TOKENS)
        assert stream.text == undisturbed
        assert stream.chunks[-1]["usage"]["completion_tokens"] == tokens
        assert await api.stored_reply(session_id) == stream.text
        ids = [event.id for event in stream.events if event.id is not None]
        assert ids == list(range(1, len(ids) + 1))


def ending(stack: Stack, *names: str, by: signal.Signals = signal.SIGKILL) -> Fault:
    """End processes at once, and wait until the supervisor has brought them back."""

    async def end() -> None:
        before = [stack.signal(name, by) for name in names]
        await asyncio.gather(*map(stack.until_restarted, before))

    return end


@pytest.mark.parametrize("name", ["context_fetch", "nats", "postgres"])
async def test_no_reply_is_lost_or_changed_when_a_process_is_killed(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries, name: str
) -> None:
    talks = await talks_through(api, canaries, ending(stack, name))
    await assert_whole(api, upstream, talks)


async def test_a_killed_records_worker_is_waited_for_or_missed_in_time_and_no_chat_notices(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    async def kill_and_ask() -> None:
        restarted = asyncio.create_task(ending(stack, "records")())
        while not restarted.done():
            began = time.monotonic()
            answer = await api.call("GET", "/v1/chat/sessions")
            assert time.monotonic() - began < 3.5
            assert answer.status == 200 or (answer.status == 503 and answer.headers["retry-after"])
        await restarted

    await assert_whole(api, upstream, await talks_through(api, canaries, kill_and_ask))


async def test_a_reply_goes_on_where_its_killed_worker_left_it(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    talks = await talks_through(api, canaries, ending(stack, "generation"))
    await assert_whole(api, upstream, talks)
    attempts = [chunk["cozy"] for one in talks for chunk in one.stream.chunks[1:] if "cozy" in chunk]
    assert {"attempts": 2} in attempts


async def test_no_reply_is_lost_when_the_tools_worker_is_killed(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    talks = await talks_through(api, canaries, ending(stack, "tool_execution"), call="clock {}")
    await assert_whole(api, upstream, talks, TOKENS + TOKENS_OF_A_CALL)
    for one in talks:
        roles = [message["role"] for message in await api.messages(one.session_id)]
        assert roles == ["user", "assistant", "tool", "assistant"]


async def test_every_message_is_counted_once_although_the_counting_was_killed(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    talks = await talks_through(api, canaries, ending(stack, "memory_writeback"))
    await assert_whole(api, upstream, talks)

    async def counted() -> bool:
        sessions = [await api.call("GET", f"/v1/chat/sessions/{one.session_id}") for one in talks]
        counts: list[int] = [session.body["message_count"] for session in sessions]
        assert max(counts) <= 2
        return min(counts) == 2

    await until(counted, 10, lambda: "some were never counted")


async def test_a_reply_that_cannot_go_on_says_so_and_keeps_its_words(
    stack: Stack, api: Api, canaries: Canaries
) -> None:
    one = asyncio.create_task(talk(api, canaries.word(), 0, logprobs=True))
    await asyncio.sleep(FAULT_AFTER)
    await ending(stack, "generation", "generation.2")()
    _, session_id, stream = await one
    assert stream.error is not None
    assert stream.error["code"] == "ENGINE_FAILED"
    assert stream.chunks[-1]["cozy"] == {"state": "interrupted"}
    assert await api.stored_reply(session_id) == stream.text != ""


async def test_all_stages_and_servers_may_die_at_once(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    together = (*STAGES, "generation.2", "nats", "postgres")
    talks = await talks_through(api, canaries, ending(stack, *together))
    await assert_whole(api, upstream, [one for one in talks if one.stream.whole])
    # What a reader was shown by a bus that then forgot it, nobody alive knows of: its reply ends with the truth.
    errors = [one.stream.error for one in talks if not one.stream.whole]
    assert all(error is not None and error["code"] == "ENGINE_OVERLOADED" for error in errors)
    for one in talks:
        turn = await api.call("GET", f"/v1/turns/{one.stream.cozy['turn_id']}")
        assert turn.body["state"] == "completed"


async def test_a_worker_told_to_stop_ends_what_it_began(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    talks = await talks_through(api, canaries, ending(stack, "generation", by=signal.SIGTERM))
    await assert_whole(api, upstream, talks)
    attempts = [chunk["cozy"] for one in talks for chunk in one.stream.chunks[1:] if "cozy" in chunk]
    assert attempts == []


async def test_a_gateway_told_to_stop_lets_streams_end(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    one = asyncio.create_task(talk(api, canaries.word(), 0))
    await asyncio.sleep(FAULT_AFTER)
    await ending(stack, "gateway", by=signal.SIGTERM)()
    await assert_whole(api, upstream, [await one])


async def test_a_reply_survives_the_gateway_that_was_streaming_it(
    stack: Stack, api: Api, upstream: Upstream, word: str
) -> None:
    paced = {"x-scripted-tokens": "30", "x-scripted-gap-ms": "60", "idempotency-key": "survives"}
    asked = asyncio.create_task(api.stream(f"Go on, {word}.", headers=paced))
    await asyncio.sleep(FAULT_AFTER)
    before = stack.signal("gateway", signal.SIGKILL)
    with pytest.raises(aiohttp.ClientError):
        await asked
    await stack.until_restarted(before)
    again = await api.stream(f"Go on, {word}.", headers=paced)
    assert again.whole
    assert again.text == await upstream.says(await upstream.asked_once(word), 30)


async def test_a_frozen_worker_that_wakes_up_changes_nothing(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    """It stands still for longer than its lease, then goes on as if nothing was: most of its turns have new owners."""

    async def freeze() -> None:
        stack.signal("generation", signal.SIGSTOP)
        await asyncio.sleep(FROZEN)
        stack.signal("generation", signal.SIGCONT)

    talks = await talks_through(api, canaries, freeze)
    await assert_whole(api, upstream, talks)
