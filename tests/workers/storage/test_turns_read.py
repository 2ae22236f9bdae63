"""Turns, as their owner may see them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from schemas.faults import FaultRecord
from schemas.ids import new_id
from schemas.openai import Usage
from schemas.records import Turn
from tests.workers.storage.rows import add_session, add_turn, add_user
from workers.storage.database import Database
from workers.storage.turns_read import TurnsRead

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
STAMP = "2026-01-02T12:00:00.000000Z"
FAULT: dict[str, Any] = {"code": "ENGINE_TIMEOUT", "message": "m"}


async def test_a_turn_is_shown_as_the_api_names_it(database: Database) -> None:
    user = await add_user(database)
    session = await add_session(database, user)
    turn = await add_turn(
        database,
        user,
        session,
        state="failed",
        personality_id="poet",
        attempts=2,
        usage={"prompt_tokens": 3},
        timings={"first_token_ms": 1.5},
        fault=FAULT,
        created_at=NOON,
        finished_at=NOON,
    )
    assert await TurnsRead(database).get(user, turn) == Turn(
        id=turn,
        state="failed",
        session_id=session,
        model="m",
        personality_id="poet",
        attempts=2,
        usage=Usage(prompt_tokens=3),
        timings={"first_token_ms": 1.5},
        created_at=STAMP,
        finished_at=STAMP,
        error=FaultRecord(**FAULT),
    )


async def test_a_running_turn_has_no_end_and_no_usage(database: Database) -> None:
    user = await add_user(database)
    turn = await add_turn(database, user, await add_session(database, user), state="generating")
    shown = await TurnsRead(database).get(user, turn)
    assert shown is not None
    assert (shown.finished_at, shown.usage, shown.error) == (None, None, None)


async def test_another_users_turn_is_not_there(database: Database) -> None:
    turns, owner, stranger = TurnsRead(database), await add_user(database), await add_user(database)
    turn = await add_turn(database, owner, await add_session(database, owner))
    assert await turns.get(stranger, turn) is None
    assert await turns.replied(stranger, turn) is None
    assert await turns.get(owner, new_id()) is None


async def test_a_turn_outlives_its_session_from_sight_and_its_words_do_not(database: Database) -> None:
    turns, user = TurnsRead(database), await add_user(database)
    turn = await add_turn(database, user, await add_session(database, user, deleted_at=NOON))
    assert await turns.get(user, turn) is not None
    assert await turns.replied(user, turn) is None


async def test_a_replied_turn_has_what_was_shown_and_how_it_ended(database: Database) -> None:
    user = await add_user(database)
    session = await add_session(database, user)
    turn = await add_turn(
        database, user, session, finish_reasons=["stop", "length"], reply=[b"one", b"two"], created_at=NOON, shard=3
    )
    replied = await TurnsRead(database).replied(user, turn)
    assert replied is not None
    assert (replied.reply, replied.created) == ([b"one", b"two"], int(NOON.timestamp()))
    end = replied.end
    assert (end.finish_reasons, end.session_id, end.shard) == (["stop", "length"], session, 3)
