"""What each question is answered with."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from ops.runtime.bus import Bus
from schemas import codec
from schemas.faults import InvalidValue, NotFound
from schemas.ids import new_id
from schemas.records import (
    CreateSession,
    DeleteSession,
    GetReply,
    GetSession,
    GetTurn,
    ListMessages,
    ListSessions,
    Ping,
    Query,
    StopTurn,
    StoredMessage,
    UpdateSession,
)
from schemas.replies import Delta, Frame, ReplyFold, measure
from tests.workers.records.conftest import records_on
from tests.workers.storage.rows import add_message, add_session, add_turn, add_user
from workers.records.handlers import Records
from workers.records.pages import MAX_BYTES
from workers.storage.database import Database


@pytest.fixture
def records(database: Database, bus: Bus) -> Records:
    return records_on(database, bus)


def test_every_question_there_is_has_an_answer(records: Records) -> None:
    assert set(records.handlers()) == set(get_args(Query))


def questions_about(session_id: str, turn_id: str, user_id: str) -> list[Any]:
    return [
        GetSession(user_id=user_id, session_id=session_id),
        UpdateSession(user_id=user_id, session_id=session_id, title="t"),
        DeleteSession(user_id=user_id, session_id=session_id),
        ListMessages(user_id=user_id, session_id=session_id, limit=10),
        GetTurn(user_id=user_id, turn_id=turn_id),
        StopTurn(user_id=user_id, turn_id=turn_id),
        GetReply(user_id=user_id, turn_id=turn_id),
    ]


@pytest.mark.parametrize("strange", ["", "x", "00000000-0000-0000-0000-00000000000G", "0" * 36, "' OR true --"])
async def test_a_malformed_id_is_not_found(database: Database, records: Records, strange: str) -> None:
    user = await add_user(database)
    asked = [
        *questions_about(strange, strange, user),
        CreateSession(user_id=user, session_id=strange, personality_id="d"),
    ]
    for question in asked:
        with pytest.raises(NotFound):
            await records.handlers()[type(question)](question)


async def test_what_belongs_to_somebody_else_is_not_found(database: Database, records: Records) -> None:
    owner, stranger = await add_user(database), await add_user(database)
    session = await add_session(database, owner)
    turn = await add_turn(database, owner, session)
    for question in questions_about(session, turn, stranger):
        with pytest.raises(NotFound):
            await records.handlers()[type(question)](question)


async def test_a_deleted_session_is_not_found(database: Database, records: Records) -> None:
    user = await add_user(database)
    session = await add_session(database, user)
    await add_message(database, session)
    turn = await add_turn(database, user, session)
    await records.delete_session(DeleteSession(user_id=user, session_id=session))
    for question in questions_about(session, turn, user):
        if not isinstance(question, GetTurn | StopTurn):
            with pytest.raises(NotFound):
                await records.handlers()[type(question)](question)


async def test_a_title_that_cannot_be_stored_is_refused_by_name(database: Database, records: Records) -> None:
    user = await add_user(database)
    session = await add_session(database, user)
    asked: list[Any] = [
        CreateSession(user_id=user, session_id=new_id(), personality_id="d", title="a\0b"),
        UpdateSession(user_id=user, session_id=session, title="\0"),
    ]
    for question in asked:
        with pytest.raises(InvalidValue) as refused:
            await records.handlers()[type(question)](question)
        assert refused.value.record.param == "title"


async def test_following_the_cursors_meets_every_session_once(database: Database, records: Records) -> None:
    user = await add_user(database)
    ids = [await add_session(database, user) for _ in range(5)]
    seen, cursor, more = [], None, True
    while more:
        page = await records.list_sessions(ListSessions(user_id=user, limit=2, cursor=cursor))
        seen += [session.id for session in page.data]
        cursor, more = page.next_cursor, page.has_more
    assert seen == ids[::-1]


async def test_following_the_cursors_meets_every_message_once_however_large(
    database: Database, records: Records
) -> None:
    user = await add_user(database)
    session = await add_session(database, user)
    sizes = [10, MAX_BYTES // 2, MAX_BYTES // 2, MAX_BYTES + 1, 10, 10, 10]
    ids = [await add_message(database, session, "x" * size) for size in sizes]
    seen: list[StoredMessage] = []
    cursor, more = None, True
    while more:
        page = await records.list_messages(ListMessages(user_id=user, session_id=session, limit=3, cursor=cursor))
        assert len(codec.encode(page)) < 7_000_000
        seen += page.data
        cursor, more = page.next_cursor, page.has_more
    assert [message.id for message in seen] == ids


async def test_the_reply_of_an_ended_turn_can_be_folded_to_its_end(database: Database, records: Records) -> None:
    user = await add_user(database)
    session = await add_session(database, user)
    length, digest = measure(said := Delta(1, 1, "Hello"), 0, 0)
    measured = {"shown_index": 1, "shown_length": length, "shown_digest": digest}
    turn = await add_turn(database, user, session, reply=[codec.encode([said])], **measured)
    reply = await records.get_reply(GetReply(user_id=user, turn_id=turn))
    fold = ReplyFold()
    for frame in reply.frames:
        fold.feed(codec.decoder(Frame).decode(frame))
    assert (reply.session_id, fold.end is not None, fold.length) == (session, True, len("Hello"))


async def test_a_ping_measures_the_database(records: Records) -> None:
    assert 0 < (await records.ping(Ping())).database_ms < 2000
