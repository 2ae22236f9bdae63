"""The pool: it opens without the server, gives up in time, and heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from ops.runtime import postgres
from ops.runtime.postgres import open_pool
from schemas.ids import new_id

Pool = AsyncConnectionPool[AsyncConnection[Any]]
NOWHERE = "postgresql://127.0.0.1:9/none"


@pytest.fixture
async def opens() -> AsyncIterator[Callable[..., Awaitable[Pool]]]:
    """Pools that are closed after the test."""
    pools: list[Pool] = []

    async def open(url: str, **changes: Any) -> Pool:
        settings: dict[str, Any] = {"size": 2, "name": "test", "statement_timeout": 5.0, "wait": 3.0} | changes
        pools.append(await open_pool(url, **settings))
        return pools[-1]

    yield open
    for pool in pools:
        await pool.close(timeout=1)


Opens = Callable[..., Awaitable[Pool]]


async def first(pool: Pool, query: str, *params: Any) -> Any:
    async with pool.connection() as connection:
        row = await (await connection.execute(query.encode(), params)).fetchone()
    return row[0] if row else None


async def test_a_server_that_is_away_is_no_failed_start(opens: Opens) -> None:
    pool = await opens(NOWHERE, wait=0.1)
    began = asyncio.get_running_loop().time()
    with pytest.raises(psycopg.OperationalError):
        await first(pool, "SELECT 1")
    assert asyncio.get_running_loop().time() - began < 2


async def test_what_is_said_is_said_at_once(opens: Opens, database_url: str) -> None:
    pool = await opens(database_url)
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE notes (id int)")
        assert await first(pool, "SELECT count(*) FROM notes") == 0


async def test_the_server_knows_who_is_there(opens: Opens, database_url: str) -> None:
    pool = await opens(database_url, name="generation")
    assert await first(pool, "SELECT current_setting('application_name')") == "cozy-generation"


async def test_a_statement_has_its_time(opens: Opens, database_url: str) -> None:
    pool = await opens(database_url, statement_timeout=0.05)
    with pytest.raises(psycopg.errors.QueryCanceled):
        await first(pool, "SELECT pg_sleep(60)")
    assert await first(pool, "SELECT 1") == 1


async def test_a_transaction_that_stands_still_is_ended_and_what_it_locked_is_free(
    opens: Opens, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "IDLE_SECONDS", 0.2)
    still, other = await opens(database_url), await opens(database_url)

    async def stand_still() -> None:
        async with still.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(1)")
            await first(other, "SELECT pg_advisory_xact_lock(1)")

    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        await stand_still()


async def test_no_more_connections_than_allowed_are_opened(opens: Opens, database_url: str) -> None:
    pool = await opens(database_url, size=2, wait=1)
    async with pool.connection(), pool.connection():
        with pytest.raises(psycopg.OperationalError):
            await first(pool, "SELECT 1")
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cozy-test' AND datname = current_database()"
    assert await first(pool, mine) <= 2


async def test_ids_and_json_come_as_plain_values(opens: Opens, database_url: str) -> None:
    pool, id = await opens(database_url), new_id()
    assert await first(pool, "SELECT %s::uuid", id) == id
    assert await first(pool, """SELECT '{"a": [1, null]}'::jsonb""") == {"a": [1, None]}


async def test_connections_that_the_server_dropped_are_made_anew(opens: Opens, database_url: str) -> None:
    pool = await opens(database_url, size=1)
    with pytest.raises(psycopg.OperationalError):
        await first(pool, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert await first(pool, "SELECT 1") == 1
