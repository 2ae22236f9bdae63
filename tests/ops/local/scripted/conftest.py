"""A scripted server as a real process, and clients that talk to it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI


class Server:
    """A running server: its address, its process, and what it says it was asked."""

    def __init__(self, url: str, process: asyncio.subprocess.Process) -> None:
        self.url = url
        self.process = process

    def client(self, api_key: str = "any") -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=10)

    async def requests(self, limit: int = 1000) -> list[dict[str, Any]]:
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/scripted/requests?limit={limit}") as got:
            listing = await got.json()
        found: list[dict[str, Any]] = listing["data"]
        return found

    async def last_request(self) -> dict[str, Any]:
        return (await self.requests(1))[0]


@asynccontextmanager
async def started(environment: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """A server with this in its environment, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.local.scripted", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(10):
            url = (await process.stdout.readline()).decode().strip()
        yield Server(url, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Server]:
    async with started() as running:
        yield running


@pytest.fixture(scope="session")
async def client(server: Server) -> AsyncIterator[AsyncOpenAI]:
    async with server.client() as connected:
        yield connected
