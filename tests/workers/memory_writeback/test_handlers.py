"""Finished turns are counted into their sessions once, together, and a session gets its name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.turns import TurnCompleted
from tests.workers.asked import claimed, column, finish, in_session
from tests.workers.storage.rows import add_message, add_session
from workers.memory_writeback.handlers import TITLE_LENGTH, MemoryWriteback, title_of
from workers.storage.database import Database
from workers.storage.memory import MemoryShelf
from workers.storage.turns import Turns


@pytest.fixture
def door(database: Database) -> MemoryWriteback:
    return MemoryWriteback(MemoryShelf(database))


async def ended(turns: Turns, user_id: str, session_id: str, words: str = "Hi there") -> TurnCompleted:
    turn_id = await in_session(turns, user_id, session_id, words)
    await finish(turns, await claimed(turns, turn_id))
    return TurnCompleted(turn_id=turn_id)


async def sessions(database: Database) -> list[Any]:
    query = "SELECT jsonb_build_array(message_count, title) AS value FROM sessions ORDER BY id"
    return await column(database, query)


async def test_a_turn_is_counted_and_its_session_named_after_its_first_words(
    door: MemoryWriteback, turns: Turns, user_id: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    with capture_logs() as logs:
        await door.on_turn_completed(await ended(turns, user_id, session_id, "What is\n a cat?"))
    assert await sessions(turns.database) == [[2, "What is a cat?"]]
    assert [line["event"] for line in logs] == ["turn_counted"]


async def test_a_turn_that_is_told_again_changes_nothing(door: MemoryWriteback, turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    event = await ended(turns, user_id, session_id)
    await asyncio.gather(*(door.on_turn_completed(event) for _ in range(3)))
    await door.on_turn_completed(event)
    assert await sessions(turns.database) == [[2, "Hi there"]]


async def test_a_name_that_is_there_stays(door: MemoryWriteback, turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id, title="Mine")
    await door.on_turn_completed(await ended(turns, user_id, session_id))
    assert await sessions(turns.database) == [[2, "Mine"]]


async def test_a_session_that_begins_without_words_gets_no_name(
    door: MemoryWriteback, turns: Turns, user_id: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    await add_message(turns.database, session_id, [{"type": "image_url", "image_url": {"url": "u"}}])
    await door.on_turn_completed(await ended(turns, user_id, session_id))
    assert await sessions(turns.database) == [[2, None]]


async def test_turns_that_end_together_are_counted_together(door: MemoryWriteback, turns: Turns, user_id: str) -> None:
    ids = sorted([await add_session(turns.database, user_id) for _ in range(3)])
    finished = [await ended(turns, user_id, session_id) for session_id in (*ids, *ids)]
    await asyncio.gather(*map(door.on_turn_completed, finished))
    assert await sessions(turns.database) == [[4, "Hi there"]] * 3
    together = "SELECT count(DISTINCT xmin::text) AS value FROM memory_writes"
    assert await column(turns.database, together) == [1]


async def test_a_delivery_that_is_cancelled_takes_nothing_from_the_others(
    door: MemoryWriteback, turns: Turns, user_id: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    first, second = [await ended(turns, user_id, session_id) for _ in range(2)]
    cancelled = asyncio.create_task(door.on_turn_completed(first))
    kept = asyncio.create_task(door.on_turn_completed(second))
    await asyncio.sleep(0)
    cancelled.cancel()
    await kept
    assert cancelled.cancelled()
    assert await sessions(turns.database) == [[4, "Hi there"]]


async def test_a_database_that_fails_fails_every_delivery_and_the_next_try_counts(
    door: MemoryWriteback, turns: Turns, user_id: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    finished = [await ended(turns, user_id, session_id) for _ in range(2)]
    await turns.database.run("ALTER TABLE memory_writes RENAME TO away", {})
    results = await asyncio.gather(*map(door.on_turn_completed, finished), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["UndefinedTable"] * 2
    await turns.database.run("ALTER TABLE away RENAME TO memory_writes", {})
    await asyncio.gather(*map(door.on_turn_completed, finished))
    assert await sessions(turns.database) == [[4, "Hi there"]]


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("", ""),
        ("  \n ", ""),
        ("Hi", "Hi"),
        ("  Hi \n\t there ", "Hi there"),
        ("x" * TITLE_LENGTH, "x" * TITLE_LENGTH),
        ("x" * (TITLE_LENGTH + 1), "x" * (TITLE_LENGTH - 1) + "…"),
        ("word " * 20, ("word " * 12).strip() + "…"),
        ("short " + "x" * 100, ("short " + "x" * 100)[: TITLE_LENGTH - 1] + "…"),
        ("猫" * 100, "猫" * (TITLE_LENGTH - 1) + "…"),
    ],
)
def test_a_name_is_the_beginning_cut_at_a_word(words: str, title: str) -> None:
    assert title_of(words) == title


@given(st.text(max_size=200))
def test_a_name_is_one_short_line_of_the_words_themselves(words: str) -> None:
    title = title_of(words)
    assert len(title) <= TITLE_LENGTH
    assert "\n" not in title
    assert " ".join(words.split()).startswith(title.removesuffix("…"))
