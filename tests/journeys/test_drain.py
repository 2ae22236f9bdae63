"""Deploys that nobody notices: what a stopping worker cannot end within its grace, another one ends."""

from __future__ import annotations

import asyncio
import signal

from tests.journeys.api import Api, Upstream
from tests.journeys.canaries import Canaries
from tests.journeys.stack import Stack

TOKENS, GAP_MS = 45, 200
"""Nine seconds: longer than development's seven for a worker that is told to stop."""
PACED = {"x-scripted-tokens": str(TOKENS), "x-scripted-gap-ms": str(GAP_MS)}
REPLIES = 6
"""Enough that either worker has some of them in hand."""


async def test_a_reply_that_outlasts_its_worker_s_grace_is_handed_over_in_the_same_stream(
    stack: Stack, api: Api, upstream: Upstream, canaries: Canaries
) -> None:
    words = [canaries.word() for _ in range(REPLIES)]
    sessions = [await api.session() for _ in words]
    replies = [
        asyncio.create_task(api.stream(f"Tell me of {word}.", headers=PACED, cozy={"session_id": session_id}))
        for word, session_id in zip(words, sessions, strict=True)
    ]
    await asyncio.sleep(0.8)
    before = stack.signal("generation", signal.SIGTERM)
    attempts = []
    for word, session_id, stream in zip(words, sessions, await asyncio.gather(*replies), strict=True):
        assert stream.whole, stream.raw[-600:]
        assert stream.text == await upstream.says((await upstream.asked(word))[0], TOKENS)
        assert await api.stored_reply(session_id) == stream.text
        attempts += [chunk["cozy"]["attempts"] for chunk in stream.chunks[1:] if "attempts" in chunk.get("cozy", {})]
    assert set(attempts) == {2}, "some were the stopping worker's, and went on at the other one"
    await stack.until_restarted(before)
    await stack.until_well()


async def test_what_is_asked_while_workers_are_replaced_one_after_the_other_is_answered(stack: Stack, api: Api) -> None:
    over = asyncio.Event()

    async def ask() -> list[int]:
        answers = []
        while not over.is_set():
            answers.append((await api.chat("Hello.", headers={"x-scripted-tokens": "3"})).status)
        return answers

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    for name in ("context_fetch", "generation", "tool_execution", "generation.2", "memory_writeback"):
        await stack.until_restarted(stack.signal(name, signal.SIGTERM))
    over.set()
    answers = [status for task in asking for status in await task]
    assert set(answers) == {200}
    await stack.until_well()
