"""A turn that no worker can work on: it fails, its caller is told, it is set aside, and its session goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psycopg
import pytest

from tests.journeys.api import Api
from tests.journeys.stack import KEY, Stack, until

SLOW = {"x-scripted-tokens": "30", "x-scripted-gap-ms": "100"}
SPOIL = """UPDATE turns SET arrival = '\\xc1' WHERE id = (
    SELECT id FROM turns WHERE session_id = %s AND state = 'queued' ORDER BY ord LIMIT 1) RETURNING id::text"""
MESSAGES = "SELECT message_count FROM sessions WHERE id = %s"


@pytest.fixture
async def spoiled(servers_folder: Path) -> AsyncIterator[Stack]:
    """A system of its own: what it logs is no good example."""
    stack = Stack(servers_folder / "spoiled", {})
    try:
        await stack.start()
        yield stack
        await stack.stop()
    finally:
        await stack.kill()


@pytest.fixture
async def database(spoiled: Stack) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(spoiled.entry("postgres").url, autocommit=True) as connection:
        yield connection


async def number(database: psycopg.AsyncConnection, query: str, session_id: str) -> int:
    row = await (await database.execute(query.encode(), (session_id,))).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_poisoned_turn_fails_after_six_tries_and_its_session_goes_on(
    spoiled: Stack, database: psycopg.AsyncConnection
) -> None:
    async with aiohttp.ClientSession() as http:
        api = Api(http, spoiled.url, KEY)
        session_id = await api.session()
        async with asyncio.TaskGroup() as group:
            talks = []
            for waiting, said in enumerate(("First.", "Second.", "Third.")):
                asked = {"cozy": {"session_id": session_id}}
                talks.append(group.create_task(api.stream(said, headers=SLOW if not waiting else None, **asked)))
                await until(lambda: has(database, session_id, waiting), 10, lambda: "was not queued")  # noqa: B023
            [[poisoned]] = await (await database.execute(SPOIL.encode(), (session_id,))).fetchall()
        first, second, third = (talk.result() for talk in talks)
        assert first.whole
        assert third.whole
        assert second.error is not None
        assert second.error["code"] == "ENGINE_INTERNAL"
        told = [message["role"] for message in await api.messages(session_id)]
        assert told == ["user", "assistant", "user", "user", "assistant"]
        await until(lambda: counted(database, session_id, 5), 10, lambda: "memory did not count the failed turn")
    log = (spoiled.logs / "context_fetch.log").read_text()
    assert log.count('"work_failed"') == 6
    assert log.count('"dead_letter"') == 1
    status, listed, errors = await spoiled.ops("dead", "list")
    assert poisoned in listed, (status, errors)


async def has(database: psycopg.AsyncConnection, session_id: str, waiting: int) -> bool:
    query = "SELECT count(*) FROM turns WHERE session_id = %s"
    return await number(database, query, session_id) == waiting + 1


async def counted(database: psycopg.AsyncConnection, session_id: str, messages: int) -> bool:
    return await number(database, MESSAGES, session_id) == messages
