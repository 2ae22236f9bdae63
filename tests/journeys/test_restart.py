"""Everything dies at once, as when the power goes; started again, it finds its data and ends what it had accepted."""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp
import pytest

from ops.local.run_file import read_run_file
from tests.journeys.api import Api, Upstream
from tests.journeys.stack import Stack, until

TOKENS = 30
PACED = {"x-scripted-tokens": str(TOKENS), "x-scripted-gap-ms": "60"}


async def test_what_was_accepted_is_answered_after_everything_was_killed(
    stack: Stack, api: Api, upstream: Upstream, word: str
) -> None:
    session_id = await api.session(title="Before the fall")
    first = await api.chat("Remember me.", cozy={"session_id": session_id})
    under_way = asyncio.create_task(api.stream(f"Go on, {word}.", cozy={"session_id": session_id}, headers=PACED))
    await asyncio.sleep(0.8)
    asked = await upstream.asked_once(word)
    for entry in read_run_file(stack.data_dir / "run.json"):
        os.kill(entry.pid, signal.SIGKILL)
    await stack.kill()
    with pytest.raises(aiohttp.ClientError):
        await under_way

    await stack.start()

    async def answered() -> bool:
        *_, last = await api.messages(session_id)
        return last["role"] == "assistant" and last["content"] != first.text and "partial" not in last["metadata"]

    await until(answered, 15, lambda: "the turn under way was lost")
    said = [message["content"] for message in await api.messages(session_id)]
    assert said == ["Remember me.", first.text, f"Go on, {word}.", await upstream.says(asked, TOKENS)]
