"""Commands as typed, on the test's own servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from ops.__main__ import main


class Said(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Ops = Callable[..., Awaitable[Said]]


@pytest.fixture
def ops(database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ops:
    """`python -m ops ...`. In a thread, since a command runs an event loop of its own."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("NATS_URL", nats_url)

    async def run(*arguments: str) -> Said:
        status = await asyncio.to_thread(main, list(arguments))
        return Said(status, *capsys.readouterr())

    return run
