"""The evidence is everything that is stored, as it is stored."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from schemas.ids import new_id
from tests.workers.storage.rows import add_message, add_session, add_turn, add_user
from workers.storage.database import Database
from workers.storage.evidence import StoredCall, StoredSession, StoredTurn, gather_evidence


async def test_where_nothing_is_stored_there_is_no_evidence(database: Database) -> None:
    evidence = await gather_evidence(database)
    assert [evidence.turns, evidence.messages, evidence.calls, evidence.sessions] == [[], [], [], []]


async def test_turns_come_in_the_order_of_their_arrival_with_how_they_ended(database: Database) -> None:
    user_id = await add_user(database)
    session_id = await add_session(database, user_id, message_count=3)
    first = await add_turn(database, user_id, session_id, state="failed", fault=Jsonb({"code": "TOOL_FAILED"}))
    second = await add_turn(database, user_id, session_id, attempts=2, finished_at="2026-01-01")
    await database.run(
        "INSERT INTO memory_writes (turn_id, user_id, session_id) VALUES (%(turn)s, %(user)s, %(session)s)",
        {"turn": second, "user": user_id, "session": session_id},
    )
    evidence = await gather_evidence(database)
    [one, two] = evidence.turns
    assert (one.id, one.fault, one.ended, one.remembered) == (first, "TOOL_FAILED", False, False)
    assert two == StoredTurn(
        id=second,
        session_id=session_id,
        ord=one.ord + 1,
        state="completed",
        attempts=2,
        ended=True,
        fault="",
        remembered=True,
    )
    assert evidence.sessions == [StoredSession(id=session_id, counted=3)]


async def test_messages_say_what_they_are(database: Database) -> None:
    session_id = await add_session(database, await add_user(database))
    turn_id = new_id()
    said: list[tuple[str, Any, dict[str, Any]]] = [
        ("user", [{"type": "text", "text": "Look"}], {}),
        ("assistant", None, {"tool_calls": []}),
        ("tool", "It is written.", {"tool_call_id": "call-1"}),
        ("assistant", "So far", {"partial": True, "choice": 1}),
    ]
    for role, content, metadata in said:
        await add_message(database, session_id, content, role=role, turn_id=turn_id, metadata=Jsonb(metadata))
    messages = (await gather_evidence(database)).messages
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert {(message.session_id, message.turn_id) for message in messages} == {(session_id, turn_id)}
    assert [message.text for message in messages[1:]] == ["", "It is written.", "So far"]
    assert [message.calls for message in messages] == [False, True, False, False]
    assert [message.answers for message in messages] == ["", "", "call-1", ""]
    assert [(message.partial, message.choice) for message in messages] == [(False, 0)] * 3 + [(True, 1)]


async def test_calls_come_with_their_arguments_and_how_they_stand(database: Database) -> None:
    call_id, turn_id = new_id(), new_id()
    await database.run(
        "INSERT INTO tool_calls (id, turn_id, round, position, call_id, name, arguments) "
        "VALUES (%(id)s, %(turn)s, 0, 1, 'c', 'clock', '{}')",
        {"id": call_id, "turn": turn_id},
    )
    calls = (await gather_evidence(database)).calls
    assert calls == [StoredCall(id=call_id, turn_id=turn_id, name="clock", arguments="{}", status="asked")]
