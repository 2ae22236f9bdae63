"""What we rely on in psycopg: how values come and go, and which errors mean that the server is away."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import psycopg_pool
import pytest

from schemas.ids import new_id
from workers.storage.database import Database


class Value(msgspec.Struct):
    """One column."""

    value: Any


async def echoed(database: Database, query: str, value: Any = None) -> Any:
    row = await database.one(f"SELECT {query} AS value", {"v": value}, Value)
    assert row is not None
    return row.value


async def test_an_id_is_text_in_every_shape(database: Database) -> None:
    id = new_id()
    assert await echoed(database, "%(v)s::uuid", id) == id
    assert await echoed(database, "(SELECT %(v)s::uuid)", id) == id


async def test_a_list_of_ids_goes_as_it_is(database: Database) -> None:
    ids = [new_id(), new_id()]
    query = "(SELECT string_agg(each::text, ',') FROM unnest(%(v)s::uuid[]) AS each)"
    assert await echoed(database, query, ids) == ",".join(ids)


@pytest.mark.parametrize("value", [None, 7, 1.5, "ü🙂", [1, [2]], {"a": {"b": None}}])
async def test_json_is_plain_values(database: Database, value: Any) -> None:
    assert await echoed(database, "%(v)s::text::jsonb", msgspec.json.encode(value).decode()) == value


async def test_bytes_go_as_bytes(database: Database) -> None:
    every = bytes(range(256))
    assert await echoed(database, "%(v)b::bytea", every) == every


async def test_big_numbers_and_texts_with_percent_signs_are_whole(database: Database) -> None:
    assert await echoed(database, "%(v)s::bigint", 2**40) == 2**40
    assert await echoed(database, "%(v)s::text", "100 %(v)s") == "100 %(v)s"


@pytest.mark.parametrize("query", ["%(v)s::text", "to_jsonb(%(v)s::text)"])
async def test_a_null_character_is_refused_as_an_error_of_the_data(database: Database, query: str) -> None:
    with pytest.raises(psycopg.DataError):
        await echoed(database, query, "a\0b")


async def test_a_query_is_the_same_when_the_server_has_prepared_it(database: Database) -> None:
    async with database.held() as held:
        for i in range(6):
            assert await held.one("SELECT %(v)s::int AS value", {"v": i}, Value) == Value(i)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.AdminShutdown,
        psycopg.errors.CrashShutdown,
        psycopg.errors.CannotConnectNow,
        psycopg.errors.TooManyConnections,
        psycopg.errors.QueryCanceled,
        psycopg.errors.DeadlockDetected,
        psycopg.errors.SerializationFailure,
        psycopg.errors.DiskFull,
        psycopg_pool.PoolTimeout,
        psycopg_pool.PoolClosed,
    ],
)
def test_what_passes_by_itself_is_an_operational_error(error: type[Exception]) -> None:
    assert issubclass(error, psycopg.OperationalError)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UniqueViolation,
        psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidTextRepresentation,
        psycopg.DataError,
        psycopg.ProgrammingError,
    ],
)
def test_a_mistake_is_none(error: type[Exception]) -> None:
    assert not issubclass(error, psycopg.OperationalError | psycopg.InterfaceError)


async def test_a_connection_that_the_server_ended_is_an_operational_error(database: Database) -> None:
    with pytest.raises(psycopg.OperationalError):
        await database.run("SELECT pg_terminate_backend(pg_backend_pid())", {})
    await database.ping()
