"""A ledger that runs, and HTTP to it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from ops.drills.chaos import running_ledger
from ops.drills.clients import connector
from ops.drills.stack import Stack


@pytest.fixture
async def ledger() -> AsyncIterator[str]:
    """The address of a ledger that has nothing in it yet."""
    async with running_ledger() as url:
        yield url


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP as a drill's clients have it."""
    async with connector() as session:
        yield session


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A system that was never started, with nothing in its run.json."""
    stack = Stack()
    stack.data.mkdir()
    yield stack
    shutil.rmtree(stack.folder)
