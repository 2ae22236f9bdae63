"""The process: how it starts, refuses to start, and ends."""

import asyncio
import os
import sys
from urllib.parse import urlsplit

import pytest

from tests.ops.local.scripted.conftest import Server, started


async def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code and what was said on stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.local.scripted", *arguments),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    async with asyncio.timeout(10):
        _, said = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_a_port_in_use_stops_the_start(server: Server) -> None:
    code, said = await run("--port", str(urlsplit(server.url).port))
    assert code == 1
    assert "address already in use" in said


async def test_a_wrong_control_in_the_environment_stops_the_start_and_names_itself() -> None:
    code, said = await run("--port", "0", SCRIPTED_GAP_MS="soon")
    assert code == 1
    assert "gap-ms" in said


async def test_the_environment_sets_the_controls() -> None:
    async with started({"SCRIPTED_TOKENS": "7"}) as server, server.client() as client:
        answer = await client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "hi"}])
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7


@pytest.mark.parametrize("stream", [True, False])
async def test_sigterm_ends_it_at_once_with_replies_open(stream: bool) -> None:
    async with started() as server, server.client() as client:
        asking = asyncio.ensure_future(
            client.chat.completions.create(
                model="scripted",
                messages=[{"role": "user", "content": "hi [[gap=60000]]"}],
                stream=stream,
            )
        )
        async with asyncio.timeout(5):
            while not await server.requests():
                pass
            server.process.terminate()
            assert await server.process.wait() == 0
        await asyncio.gather(asking, return_exceptions=True)
