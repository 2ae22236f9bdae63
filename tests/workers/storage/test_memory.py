"""What a finished turn leaves in its session: counted once, named once, noted once."""

from __future__ import annotations

import asyncio

import pytest

from schemas.ids import new_id
from tests.workers.asked import claimed, column, finish, in_session, prepared
from tests.workers.storage.rows import add_message, add_session
from workers.storage.database import Database
from workers.storage.memory import MemoryShelf, Noted
from workers.storage.turns import Turns


@pytest.fixture
def shelf(database: Database) -> MemoryShelf:
    return MemoryShelf(database)


async def ended(turns: Turns, user_id: str, session_id: str) -> str:
    """A turn of the session with its message and its reply."""
    turn_id = await in_session(turns, user_id, session_id)
    await finish(turns, await claimed(turns, turn_id))
    return turn_id


async def counts(database: Database) -> list[int]:
    return await column(database, "SELECT message_count AS value FROM sessions ORDER BY id")


async def test_a_turn_is_counted_into_its_session_once(shelf: MemoryShelf, turns: Turns, user_id: str) -> None:
    session_id = await add_session(shelf.database, user_id)
    turn_id = await ended(turns, user_id, session_id)
    assert await shelf.note([turn_id]) == [Noted(session_id=session_id, untitled=True)]
    assert await shelf.note([turn_id]) == []
    assert await counts(shelf.database) == [2]
    assert await column(shelf.database, "SELECT count(*) AS value FROM memory_writes") == [1]
    assert await column(shelf.database, "SELECT last_message_at IS NULL AS value FROM sessions") == [False]


async def test_turns_of_several_sessions_are_counted_together(shelf: MemoryShelf, turns: Turns, user_id: str) -> None:
    one, other = sorted([await add_session(shelf.database, user_id) for _ in range(2)])
    turn_ids = [await ended(turns, user_id, each) for each in (one, one, other)]
    noted = await shelf.note(turn_ids)
    assert sorted(each.session_id for each in noted) == [one, other]
    assert await counts(shelf.database) == [4, 2]


async def test_a_turn_told_twice_at_once_is_counted_once(shelf: MemoryShelf, turns: Turns, user_id: str) -> None:
    session_id = await add_session(shelf.database, user_id)
    turn_id = await ended(turns, user_id, session_id)
    await asyncio.gather(*(shelf.note([turn_id]) for _ in range(4)))
    assert await counts(shelf.database) == [2]


async def test_a_turn_nobody_knows_is_noted_nowhere(shelf: MemoryShelf) -> None:
    assert await shelf.note([new_id()]) == []


async def test_a_hidden_session_and_one_with_a_title_want_no_name(
    shelf: MemoryShelf, turns: Turns, user_id: str
) -> None:
    named = await add_session(shelf.database, user_id, title="Mine")
    hidden = await prepared(turns, user_id)
    await finish(turns, await claimed(turns, hidden))
    noted = await shelf.note([await ended(turns, user_id, named), hidden])
    assert {each.untitled for each in noted} == {False}


async def test_a_title_is_given_once(shelf: MemoryShelf, user_id: str) -> None:
    session_id = await add_session(shelf.database, user_id)
    await shelf.title(session_id, "First")
    await shelf.title(session_id, "Second")
    assert await column(shelf.database, "SELECT title AS value FROM sessions") == ["First"]


async def test_the_first_words_are_the_user_s_oldest(shelf: MemoryShelf, user_id: str) -> None:
    session_id = await add_session(shelf.database, user_id)
    assert await shelf.first_words(session_id) == ""
    await add_message(shelf.database, session_id, "Welcome.", role="assistant")
    picture = {"type": "image_url", "image_url": {"url": "u"}}
    await add_message(shelf.database, session_id, [{"type": "text", "text": "Look"}, picture])
    await add_message(shelf.database, session_id, "later")
    assert await shelf.first_words(session_id) == "Look"
