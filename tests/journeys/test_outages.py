"""A work queue at its limit refuses at once and heals. Longer outages are drills: `python -m ops.drills outages`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from nats.js import JetStreamContext

from ops.runtime.bus import Bus
from schemas.streams import TURNS
from tests.journeys.api import Api
from tests.journeys.stack import Stack, until

PADDING = "padding " * 12_000
"""About 96 KB: one such question fits into the room that is left, two do not."""
ROOM = 150_000
AT_ONCE = 2.0


@pytest.fixture
async def jetstream(stack: Stack) -> AsyncIterator[JetStreamContext]:
    """The running system's own."""
    bus = await Bus.connect(stack.entry("nats").url, "journey")
    yield bus.client.jetstream(timeout=5)
    await bus.close()


async def limit(jetstream: JetStreamContext, size: int) -> None:
    config = (await jetstream.stream_info(TURNS.name)).config
    config.max_bytes = size
    await jetstream.update_stream(config)


async def test_a_full_work_queue_refuses_at_once_and_takes_turns_again_when_it_is_served(
    stack: Stack, api: Api, jetstream: JetStreamContext
) -> None:
    async def holds_the_first() -> bool:
        return (await jetstream.stream_info(TURNS.name)).state.bytes > len(PADDING)

    stack.signal("context_fetch", signal.SIGSTOP)
    try:
        await limit(jetstream, ROOM)
        first = asyncio.create_task(api.chat(PADDING))
        await until(holds_the_first, 5, lambda: "the first question was not stored")
        async with asyncio.timeout(AT_ONCE):
            refused = await api.chat(PADDING)
        assert (refused.status, refused.error["code"]) == (503, "ENGINE_OVERLOADED")
        assert int(refused.headers["retry-after"]) >= 1
        stack.signal("context_fetch", signal.SIGCONT)
        assert (await first).status == 200
        assert (await api.chat(PADDING)).status == 200
    finally:
        stack.signal("context_fetch", signal.SIGCONT)
        await limit(jetstream, TURNS.max_bytes)
