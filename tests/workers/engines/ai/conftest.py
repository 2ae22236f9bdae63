"""A scripted model server of its own process, and engines that speak to it."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing
from typing import Any

import aiohttp
import msgspec
import pytest

from ops.runtime.models import ModelCatalogue
from ops.runtime.settings import Generation, Provider
from schemas.context import ModelChoice
from schemas.openai import UserMessage
from workers.engines.ai.guard import GuardedEngine
from workers.engines.ai.pool import EnginePool
from workers.engines.ai.port import ModelCall

QUICK = Generation(first_token_timeout=5, idle_timeout=5, total_timeout=20, retries=2, retry_budget=5)
Says = Callable[..., Awaitable[str]]
MakeEngine = Callable[..., Awaitable[GuardedEngine]]


@pytest.fixture(scope="session")
async def scripted() -> AsyncIterator[str]:
    """The URL of a scripted model server."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.local.scripted", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
    yield url
    process.terminate()
    await asyncio.wait_for(process.wait(), 10)


@pytest.fixture
async def make_engine(scripted: str) -> AsyncIterator[MakeEngine]:
    """Engines with a pool each, closed after the test."""
    pools: list[EnginePool] = []

    async def make(
        url: str = f"{scripted}/v1", name: str = "scripted", model: str = "scripted", **changed: Any
    ) -> GuardedEngine:
        settings = {key: changed.pop(key) for key in ("api_key", "models") if key in changed}
        choice = ModelChoice(provider=name, model=model)
        models = ModelCatalogue(providers={name: Provider(base_url=url, **settings)}, default=choice)
        pools.append(EnginePool(models, msgspec.structs.replace(QUICK, **changed)))
        return await pools[-1].engine(choice)

    yield make
    for pool in pools:
        await pool.close()


@pytest.fixture
async def says() -> AsyncIterator[Says]:
    """A server that answers every request with exactly these pieces of bytes, then closes. Its URL."""
    servers: list[asyncio.Server] = []

    async def serve(*pieces: bytes) -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            writer.close()

        servers.append(await asyncio.start_server(answer, "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/v1"

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def unused_url() -> Iterator[str]:
    """A URL where nobody listens, for as long as the test lasts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@pytest.fixture
def deaf_url() -> Iterator[str]:
    """A URL whose server accepts no more connections: its backlog is full."""
    with ExitStack() as sockets:
        server = sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


def asking(text: str = "Hello", *, model: str = "scripted", **controls: Any) -> ModelCall:
    """A call; `controls` become `x-scripted-*` headers."""
    headers = {f"x-scripted-{name.replace('_', '-')}": str(value) for name, value in controls.items()}
    return ModelCall(model=model, messages=[UserMessage(text)], headers=headers)


async def words_of(engine: GuardedEngine, call: ModelCall) -> list[str]:
    """The content of each chunk that has some."""
    async with aclosing(engine.chat_stream(call)) as stream:
        return [
            choice.delta.content
            async for chunks in stream
            for chunk in chunks
            for choice in chunk.choices
            if choice.delta.content
        ]


async def requests(url: str, containing: str) -> list[dict[str, Any]]:
    """The scripted server's records of requests whose body holds `containing`, oldest first."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/scripted/requests") as response:
        records: list[dict[str, Any]] = (await response.json())["data"]
    return [record for record in records if containing in str(record["body"])]


async def seen(url: str, containing: str, state: Callable[[dict[str, Any]], bool], *, within: float) -> None:
    """Waits until the newest of them is in that state; TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        # Another process knows it, and sends no event.
        while not (found := await requests(url, containing)) or not state(found[-1]):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def closed_early(url: str, containing: str, *, within: float) -> None:
    """Waits until the server has noticed that its client left."""
    await seen(url, containing, lambda record: bool(record["closed_early"]), within=within)


async def last_request(url: str, containing: str) -> dict[str, Any]:
    """The newest of them."""
    return (await requests(url, containing))[-1]
