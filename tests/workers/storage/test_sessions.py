"""Sessions and messages, as their owner may see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from psycopg.types.json import Jsonb

from schemas.ids import new_id
from schemas.records import Session
from tests.workers.storage.rows import add_message, add_session, add_user
from workers.storage.database import Database
from workers.storage.sessions import BEFORE_MESSAGES, BEFORE_SESSIONS, SessionPlace, Sessions

MANY = 1_000_000
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


async def test_a_session_is_made_as_asked(database: Database) -> None:
    user, id = await add_user(database), new_id()
    made = await Sessions(database).create(user, id, "poet", "Tea")
    assert made is not None
    assert (made.id, made.title, made.personality_id, made.message_count) == (id, "Tea", "poet", 0)
    assert made.created_at.endswith("Z")
    assert made.last_message_at is None


async def test_making_a_session_again_answers_with_the_first_one(database: Database) -> None:
    user, id, sessions = await add_user(database), new_id(), Sessions(database)
    first = await sessions.create(user, id, "poet", "Tea")
    assert await sessions.create(user, id, "other", "Other") == first


async def test_another_users_session_cannot_be_made_again(database: Database) -> None:
    sessions = Sessions(database)
    id = await add_session(database, await add_user(database))
    assert await sessions.create(await add_user(database), id, "poet", None) is None


async def test_a_deleted_session_cannot_be_made_again(database: Database) -> None:
    user = await add_user(database)
    id = await add_session(database, user, deleted_at=NOON)
    assert await Sessions(database).create(user, id, "poet", None) is None


async def test_nothing_can_be_done_to_another_users_session(database: Database) -> None:
    sessions, stranger = Sessions(database), await add_user(database)
    owner = await add_user(database)
    id = await add_session(database, owner, title="mine")
    assert await sessions.get(stranger, id) is None
    assert await sessions.update(stranger, id, "theirs", None) is None
    assert not await sessions.delete(stranger, id)
    assert await sessions.after(stranger, BEFORE_SESSIONS, 10) == []
    kept = await sessions.get(owner, id)
    assert kept is not None
    assert kept.title == "mine"


async def test_a_hidden_session_can_be_read_and_is_in_no_list(database: Database) -> None:
    sessions, user = Sessions(database), await add_user(database)
    id = await add_session(database, user, hidden=True, personality_id=None)
    assert await sessions.get(user, id) is not None
    assert await sessions.after(user, BEFORE_SESSIONS, 10) == []


async def test_a_deleted_session_is_gone_from_every_view_and_its_rows_stay(database: Database) -> None:
    sessions, user = Sessions(database), await add_user(database)
    id = await add_session(database, user)
    assert await sessions.delete(user, id)
    assert await sessions.get(user, id) is None
    assert await sessions.update(user, id, "t", None) is None
    assert await sessions.after(user, BEFORE_SESSIONS, 10) == []
    assert not await sessions.delete(user, id)
    assert await database.run("SELECT FROM sessions WHERE id = %(id)s", {"id": id}) == 1


async def test_a_change_leaves_what_it_does_not_name(database: Database) -> None:
    sessions, user = Sessions(database), await add_user(database)
    id = await add_session(database, user, title="old", personality_id="poet")
    titled = await sessions.update(user, id, "new", None)
    assert titled is not None
    assert (titled.title, titled.personality_id) == ("new", "poet")
    changed = await sessions.update(user, id, None, "cook")
    assert changed is not None
    assert (changed.title, changed.personality_id) == ("new", "cook")


async def test_an_empty_title_clears_it(database: Database) -> None:
    sessions, user = Sessions(database), await add_user(database)
    id = await add_session(database, user, title="old")
    changed = await sessions.update(user, id, "", None)
    assert changed is not None
    assert changed.title is None


async def test_paging_newest_first_meets_every_session_once_even_those_of_one_moment(database: Database) -> None:
    sessions, user = Sessions(database), await add_user(database)
    moments = [NOON, NOON, NOON, NOON - timedelta(hours=1), NOON - timedelta(microseconds=1)]
    rows = [(moment, await add_session(database, user, created_at=moment)) for moment in moments]
    seen: list[Session] = []
    place = BEFORE_SESSIONS
    while page := await sessions.after(user, place, 2):
        seen += page
        place = SessionPlace(page[-1].created_at, page[-1].id)
    assert [session.id for session in seen] == [id for _, id in sorted(rows, reverse=True)]


async def test_times_are_utc_whatever_zone_the_server_is_in(database: Database) -> None:
    user = await add_user(database)
    id = await add_session(database, user, created_at=NOON, last_message_at=NOON)
    async with database.transaction() as held:
        await held.run("SET LOCAL timezone = 'Asia/Kathmandu'", {})
        found = await Sessions(held).get(user, id)  # type: ignore[arg-type]  # a connection asks like a database
    assert found is not None
    assert (found.created_at, found.last_message_at) == ("2026-01-02T12:00:00.000000Z",) * 2


async def test_messages_come_oldest_first_as_they_were_stored(database: Database) -> None:
    user = await add_user(database)
    session, turn, parent = await add_session(database, user), new_id(), new_id()
    parts = [{"type": "image_url", "image_url": {"url": "data:,x"}}]
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    await add_message(database, session, parts, turn_id=turn, parent_id=parent)
    await add_message(database, session, None, role="assistant", metadata=Jsonb({"tool_calls": [call]}))
    await add_message(database, session, "12", role="tool", metadata=Jsonb({"tool_call_id": "call_1"}))
    rows = await Sessions(database).messages_after(session, BEFORE_MESSAGES, 10, MANY)
    messages = [row.message for row in rows]
    assert [(message.role, message.content, message.metadata) for message in messages] == [
        ("user", parts, {}),
        ("assistant", None, {"tool_calls": [call]}),
        ("tool", "12", {"tool_call_id": "call_1"}),
    ]
    assert (messages[0].turn_id, messages[0].parent_id) == (turn, parent)
    assert messages[0].created_at.endswith("Z")


async def test_messages_go_on_after_a_place(database: Database) -> None:
    session = await add_session(database, await add_user(database))
    ids = [await add_message(database, session) for _ in range(5)]
    sessions = Sessions(database)
    first = await sessions.messages_after(session, BEFORE_MESSAGES, 2, MANY)
    rest = await sessions.messages_after(session, first[-1].ord, 10, MANY)
    assert [row.message.id for row in (*first, *rest)] == ids


async def test_messages_stop_where_they_would_become_too_large_but_one_always_comes(database: Database) -> None:
    session = await add_session(database, await add_user(database))
    for length in (3000, 100, 100):
        await add_message(database, session, "x" * length)
    sessions = Sessions(database)
    large = await sessions.messages_after(session, BEFORE_MESSAGES, 10, 1000)
    assert [(len(row.message.content), row.found) for row in large] == [(3000, 3)]
    rest = await sessions.messages_after(session, large[0].ord, 10, 1000)
    assert [len(row.message.content) for row in rest] == [100, 100]
