"""The door to PostgreSQL: rows as structs, transactions whole or not at all, ids as text."""

from __future__ import annotations

import asyncio

import msgspec
import psycopg
import pytest

from schemas.ids import is_id
from tests.workers.storage.rows import add_user
from workers.storage.database import Database


class Pair(msgspec.Struct):
    """Two columns."""

    one: int
    two: str = "-"


class Name(msgspec.Struct):
    """A user's."""

    name: str


USERS = "SELECT name FROM users ORDER BY name"


async def test_rows_come_back_as_structs(database: Database) -> None:
    query = "SELECT n AS one, 'x' || n AS two FROM generate_series(1, %(last)s) AS n ORDER BY n"
    assert await database.all(query, {"last": 2}, Pair) == [Pair(1, "x1"), Pair(2, "x2")]
    assert await database.one(query, {"last": 2}, Pair) == Pair(1, "x1")
    assert await database.one(query, {"last": 0}, Pair) is None


async def test_a_column_that_the_struct_does_not_know_is_a_mistake(database: Database) -> None:
    with pytest.raises(TypeError):
        await database.one("SELECT 1 AS three", {}, Pair)


async def test_changes_are_counted(database: Database) -> None:
    for name in ("ann", "ben"):
        await add_user(database, name)
    assert await database.run("UPDATE users SET role = 'admin'", {}) == 2


async def test_what_happens_outside_a_transaction_happens_at_once(database: Database) -> None:
    async with database.held() as held:
        await held.run("INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'ann')", {})
        assert await database.all(USERS, {}, Name) == [Name("ann")]


async def test_what_happens_in_a_transaction_is_seen_when_it_ends(database: Database) -> None:
    async with database.transaction() as held:
        await held.run("INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'ann')", {})
        assert await database.all(USERS, {}, Name) == []
    assert await database.all(USERS, {}, Name) == [Name("ann")]


async def test_a_transaction_that_breaks_off_leaves_nothing(database: Database) -> None:
    async def broken() -> None:
        async with database.transaction() as held:
            await held.run("INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'ann')", {})
            raise LookupError

    with pytest.raises(LookupError):
        await broken()
    assert await database.all(USERS, {}, Name) == []


async def test_a_transaction_that_is_cancelled_leaves_nothing_and_its_connection_serves_on(
    database_url: str,
) -> None:
    database = await Database.open(database_url, size=1, name="small")
    inside = asyncio.Event()

    async def slow() -> None:
        async with database.transaction() as held:
            await held.run("INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'ann')", {})
            inside.set()
            await held.run("SELECT pg_sleep(60)", {})

    task = asyncio.create_task(slow())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.all(USERS, {}, Name) == []
    await database.close()


async def test_a_query_after_a_failed_one_works(database: Database) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        await database.run("SELECT * FROM nowhere", {})
    await database.ping()


async def test_ids_are_text(database: Database) -> None:
    await add_user(database)
    found = await database.one("SELECT id::uuid AS name FROM users", {}, Name)
    assert found is not None
    assert is_id(found.name)


async def test_json_comes_back_as_plain_values(database: Database) -> None:
    query = """SELECT '{"a": [1, 2.5, null, "ü"]}'::jsonb AS name"""
    found = await database.one(query, {}, Name)
    assert found == Name({"a": [1, 2.5, None, "ü"]})  # type: ignore[arg-type]


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(database_url: str) -> None:
    database = await Database.open(database_url, size=1, name="hurried", statement_timeout=0.05)
    with pytest.raises(psycopg.errors.QueryCanceled):
        await database.run("SELECT pg_sleep(60)", {})
    await database.close()


async def test_a_server_that_was_away_fails_nobody_once_it_is_back(database: Database, database_url: str) -> None:
    """Every connection of the pool is dead, and none of them is handed out."""
    async with database.held(), database.held(), database.held():
        pass
    other = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    killed = await other.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert len(await killed.fetchall()) >= 3
    await other.close()
    for _ in range(4):
        assert await database.one("SELECT 1 AS one", {}, Pair) == Pair(1)
