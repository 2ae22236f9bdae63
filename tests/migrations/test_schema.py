"""What the tables promise by themselves: their rules, and an index for every question that is asked often."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import msgspec
import psycopg
import pytest

from schemas.ids import new_id
from tests.workers.storage.rows import add_key, add_message, add_session, add_turn, add_user
from workers.storage.database import Database
from workers.storage.queries import SQL, load

RUNNING = ["accepted", "prepared", "generating", "calling_tools"]
OTHERS = ["queued", "awaiting_approval", "completed", "failed", "cancelled", "interrupted"]
GROWING = {
    "turns", "messages", "sessions", "users", "api_keys", "tool_calls", "memory_writes", "audit_events", "refusals",
}  # fmt: skip
"""Tables that grow with use. `leases` has a row a process."""
MAY_READ_ALL = {("evidence", name) for name in load("evidence")}
"""Queries, by file and name, that are known to look at every row of a growing table."""


class Plan(msgspec.Struct):
    """One line of a plan."""

    value: str


async def refused(database: Database, statement: str, **params: Any) -> str:
    """The constraint that does not allow it."""
    with pytest.raises(psycopg.errors.IntegrityError) as raised:
        await database.run(statement, params)
    return str(raised.value.diag.constraint_name or raised.value.diag.column_name)


async def test_a_session_has_one_running_turn(database: Database) -> None:
    user_id = await add_user(database)
    for first, second in product(RUNNING, RUNNING):
        session_id = await add_session(database, user_id)
        await add_turn(database, user_id, session_id, state=first)
        with pytest.raises(psycopg.errors.UniqueViolation, match="one_running_turn_per_session"):
            await add_turn(database, user_id, session_id, state=second)


async def test_beside_it_there_may_be_any_number_that_wait_or_have_ended(database: Database) -> None:
    user_id = await add_user(database)
    session_id = await add_session(database, user_id)
    for state in ["generating", *OTHERS, *OTHERS]:
        await add_turn(database, user_id, session_id, state=state)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO users (id, name, role) VALUES (gen_random_uuid(), 'a', 'king')",
        "INSERT INTO users (id, name, status) VALUES (gen_random_uuid(), 'a', 'asleep')",
        "UPDATE turns SET state = 'lost'",
        "UPDATE messages SET role = 'narrator'",
        "UPDATE turns SET user_id = gen_random_uuid()",
        "UPDATE turns SET session_id = gen_random_uuid()",
        "UPDATE messages SET session_id = gen_random_uuid()",
        "UPDATE api_keys SET user_id = gen_random_uuid()",
        "DELETE FROM users",
        "DELETE FROM sessions",
    ],
)
async def test_a_row_that_makes_no_sense_is_refused(database: Database, statement: str) -> None:
    user_id = await add_user(database)
    session_id = await add_session(database, user_id)
    await add_key(database, user_id, "hash")
    await add_message(database, session_id)
    await add_turn(database, user_id, session_id)
    assert await refused(database, statement)


async def test_names_and_keys_are_there_once(database: Database) -> None:
    user_id = await add_user(database, "ann")
    await add_key(database, user_id, "hash")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await add_user(database, "ann")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await add_key(database, user_id, "hash")


async def test_a_round_has_one_call_a_place(database: Database) -> None:
    call = "INSERT INTO tool_calls (id, turn_id, round, position, call_id, name, arguments) "
    call += "VALUES (gen_random_uuid(), %(turn)s, 0, 1, 'c', 'clock', '{}')"
    turn_id = new_id()
    await database.run(call, {"turn": turn_id})
    assert "position" in await refused(database, call, turn=turn_id)


def every_query() -> list[tuple[str, str]]:
    return [(path.stem, name) for path in sorted(SQL.glob("*.sql")) for name in load(path.stem)]


def with_numbers(query: str) -> str:
    """The query with `$1` and so on, as EXPLAIN wants it."""
    names: dict[str, int] = {}
    return re.sub(r"%\((\w+)\)[sbt]", lambda found: f"${names.setdefault(found[1], len(names) + 1)}", query)


@pytest.fixture(scope="module")
async def plans(postgres: Any) -> dict[tuple[str, str], str]:
    """Each query's plan where an index is used if there is one."""
    found = {}
    url = postgres.url.rpartition("/")[0] + "/migrated"
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SET enable_seqscan = off")
        for file, name in every_query():
            rows = await connection.execute(f"EXPLAIN (GENERIC_PLAN) {with_numbers(load(file)[name])}".encode())
            found[file, name] = "\n".join(row[0] for row in await rows.fetchall())
    return found


@pytest.mark.parametrize("query", every_query(), ids="-".join)
def test_no_query_reads_a_growing_table_from_end_to_end(
    query: tuple[str, str], plans: dict[tuple[str, str], str]
) -> None:
    if query not in MAY_READ_ALL:
        read = set(re.findall(r"Seq Scan on (\w+)", plans[query]))
        assert not read & GROWING
