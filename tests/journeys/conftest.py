"""One running system for all journeys, and who talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from openai import AsyncOpenAI

from tests.journeys.aftermath import (
    assert_all_ended_well,
    assert_nothing_went_wrong_within,
    assert_stops_in_time,
)
from tests.journeys.api import Api, Upstream
from tests.journeys.canaries import Canaries
from tests.journeys.stack import ADMIN_KEY, KEY, Stack

SETTINGS = {
    # A worker that is frozen needs another to take its turns over, and to be fenced off by.
    "COZY_POOLS": "generation=2",
    "COZY_ENGINES__GENERATION__IDLE_TIMEOUT": "2",
    "COZY_ENGINES__GENERATION__FIRST_TOKEN_TIMEOUT": "4",
    # One of the two models of the scripted server has to be asked in words to go on from its own text.
    "COZY_ENGINES__MODEL_TRAITS__SCRIPTED-SMALL__RESUME": "continue",
    # Short enough for a test to see one, and longer than the gaps of every stream that is not to have any.
    "COZY_API__HEARTBEAT": "1",
}


@pytest.fixture(scope="package")
def canaries() -> Canaries:
    """Every word that must stay out of the logs."""
    return Canaries()


@pytest.fixture(scope="package")
async def stack(servers_folder: Path, canaries: Canaries) -> AsyncIterator[Stack]:
    """The running system. When all journeys are over it must stop in time, whole, with no word of them in its logs."""
    stack = Stack(servers_folder / "stack", SETTINGS)
    try:
        await stack.start()
        yield stack
        await assert_all_ended_well(stack)
        await assert_stops_in_time(stack)
    finally:
        await stack.kill()
    assert canaries.found_in(stack.logs) == []
    assert_nothing_went_wrong_within(stack)


@pytest.fixture(scope="package")
async def http(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP, with as many connections as a test likes."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture(scope="package")
async def api(stack: Stack, http: aiohttp.ClientSession) -> Api:
    """The development user."""
    return Api(http, stack.url, KEY)


@pytest.fixture(scope="package")
async def admin(stack: Stack, http: aiohttp.ClientSession) -> Api:
    """The development admin."""
    return Api(http, stack.url, ADMIN_KEY)


@pytest.fixture(scope="package")
async def stranger(stack: Stack, http: aiohttp.ClientSession, canaries: Canaries) -> Api:
    """Another user, made as an operator makes one."""
    status, key, errors = await stack.ops("keys", "create", "--user", "stranger")
    assert status == 0, errors
    canaries.words.append(key.strip())
    return Api(http, stack.url, key.strip())


@pytest.fixture(scope="package")
async def client(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client. It does not try again, so that every failure is seen."""
    async with AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=30) as made:
        yield made


@pytest.fixture(scope="package")
async def upstream(stack: Stack, http: aiohttp.ClientSession) -> Upstream:
    """What the model server was asked."""
    return Upstream(http, stack)


@pytest.fixture
def word(canaries: Canaries) -> str:
    """A word of this test's own, to find its requests by."""
    return canaries.word()
