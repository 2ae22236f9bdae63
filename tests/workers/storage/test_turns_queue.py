"""Order among turns in PostgreSQL: who waits, who is let go on, what stands still, and who is alive."""

from __future__ import annotations

import asyncio
from typing import Any

from schemas.faults import EngineTimeout
from schemas.ids import new_id, part_of
from schemas.turns import TurnState
from tests.workers.asked import (
    BUNDLE,
    OWNER,
    asked,
    chat,
    claimed,
    column,
    finish,
    in_session,
    new_turn,
)
from tests.workers.storage.rows import add_session, add_user
from workers.storage.arrivals import Arrivals
from workers.storage.database import Database
from workers.storage.turn_rows import Partial
from workers.storage.turns import Turns

QUEUED: dict[str, Any] = {"state": TurnState.QUEUED, "bundle": None}
LATE = EngineTimeout().record


async def released(turns: Turns, session_id: str) -> list[str]:
    """The turns that were let go on."""
    return [ready.turn_id for ready in await Arrivals(turns.database).release(session_id)]


async def test_waiting_turns_are_let_go_on_in_their_order_one_at_a_time(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    waiting = [await in_session(turns, user_id, session_id, str(i), **QUEUED) for i in range(3)]
    for turn_id in waiting:
        assert await released(turns, session_id) == [turn_id]
        assert await Arrivals(turns.database).prepare(turn_id, BUNDLE)
        assert await released(turns, session_id) == []
        await turns.fail(turn_id, LATE)
    assert await released(turns, session_id) == []


async def test_a_turn_that_was_let_go_on_is_named_until_it_is_prepared(turns: Turns, user_id: str) -> None:
    """Whoever let it may have died before it could tell."""
    session_id = await add_session(turns.database, user_id)
    first, _ = [await in_session(turns, user_id, session_id, **QUEUED) for _ in range(2)]
    for _ in range(3):
        assert await released(turns, session_id) == [first]


async def test_many_who_release_at_once_let_one_turn_go(turns: Turns, user_id: str) -> None:
    for _ in range(10):
        session_id = await add_session(turns.database, user_id)
        first, _ = [await in_session(turns, user_id, session_id, **QUEUED) for _ in range(2)]
        let_go = await asyncio.gather(*(released(turns, session_id) for _ in range(4)))
        assert {turn_id for each in let_go for turn_id in each} == {first}


async def test_a_turn_is_not_released_while_another_of_its_session_runs(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    running = await in_session(turns, user_id, session_id)
    await in_session(turns, user_id, session_id, **QUEUED)
    assert await released(turns, session_id) == []
    await claimed(turns, running)
    assert await released(turns, session_id) == []


async def test_a_released_turn_s_messages_stand_behind_the_reply_it_waited_for(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    held = await claimed(turns, await in_session(turns, user_id, session_id, "1"))
    waiting = await in_session(turns, user_id, session_id, "2", **QUEUED)
    await finish(turns, held, "re 1")
    await released(turns, session_id)
    history = await Arrivals(turns.database).history(turns.database, session_id, waiting, 10)
    assert [message.content for message in history] == ["1", "re 1"]
    query = "SELECT content AS value FROM messages ORDER BY ord"
    assert await column(turns.database, query) == ["1", "re 1", "2"]


async def test_what_is_said_behind_a_turn_is_not_heard_by_it_even_where_it_was_stopped(
    turns: Turns, user_id: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    held = await claimed(turns, await in_session(turns, user_id, session_id, "1"))
    second, third, _ = [await in_session(turns, user_id, session_id, words, **QUEUED) for words in "234"]
    assert await turns.stop(user_id, [third])
    await finish(turns, held, "re 1")
    assert await released(turns, session_id) == [second]
    history = await Arrivals(turns.database).history(turns.database, session_id, second, 10)
    assert [message.content for message in history] == ["1", "re 1"]


async def test_a_released_turn_is_prepared_once(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    turn_id = await in_session(turns, user_id, session_id, **QUEUED)
    assert await Arrivals(turns.database).released(turn_id) is None
    assert not await Arrivals(turns.database).prepare(turn_id, BUNDLE)
    await released(turns, session_id)
    row = await Arrivals(turns.database).released(turn_id)
    assert row is not None
    assert row.session_id == session_id
    assert await Arrivals(turns.database).prepare(turn_id, BUNDLE)
    assert not await Arrivals(turns.database).prepare(turn_id, BUNDLE)
    assert await turns.claim(turn_id, 0, OWNER) is not None


async def test_a_session_is_busy_while_a_turn_of_it_is_to_be_answered(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    async with turns.database.transaction() as held:
        assert not await Arrivals(turns.database).busy(held, session_id)
    await finish(turns, await claimed(turns, await in_session(turns, user_id, session_id)))
    async with turns.database.transaction() as held:
        assert not await Arrivals(turns.database).busy(held, session_id)
    await in_session(turns, user_id, session_id, **QUEUED)
    async with turns.database.transaction() as held:
        assert await Arrivals(turns.database).busy(held, session_id)


async def test_a_session_is_held_for_its_owner_only(turns: Turns, user_id: str, database: Database) -> None:
    session_id = await add_session(database, user_id, personality_id="tutor")
    gone = await add_session(database, user_id, deleted_at="2026-01-01T00:00:00Z")
    async with database.transaction() as held:
        locked = await Arrivals(turns.database).lock_session(held, session_id, user_id)
        assert locked is not None
        assert locked.personality_id == "tutor"
        assert await Arrivals(turns.database).lock_session(held, session_id, await add_user(database)) is None
        assert await Arrivals(turns.database).lock_session(held, gone, user_id) is None
        assert await Arrivals(turns.database).lock_session(held, new_id(), user_id) is None


async def test_whoever_holds_a_session_keeps_no_commit_of_its_turns_waiting(
    turns: Turns, user_id: str, database: Database
) -> None:
    """A holder that is waited for is idle for too long, and thrown out."""
    arrivals, (session_id, other) = Arrivals(database), [await add_session(database, user_id) for _ in range(2)]
    owned = [await claimed(turns, await in_session(turns, user_id, each)) for each in (session_id, other)]
    partials = [
        Partial(message_id=part_of(each.turn_id, "reply", 0, 0), turn_id=each.turn_id, epoch=each.epoch, text="He")
        for each in owned
    ]
    async with database.transaction() as held:
        await arrivals.lock_session(held, session_id, user_id)
        await turns.keep_partial(partials)
        await finish(turns, owned[0])
        assert not await arrivals.busy(held, session_id)


async def test_a_retry_finds_its_callers_newest_turn_with_that_body(turns: Turns, user_id: str) -> None:
    other = await add_user(turns.database)
    old, new = [asked(user_id, fingerprint="f") for _ in range(2)]
    for arrival in (old, new, asked(user_id, fingerprint="g"), asked(other, fingerprint="f")):
        await Arrivals(turns.database).open(new_turn(arrival))
    found = await Arrivals(turns.database).find_same(asked(user_id, fingerprint="f", retried=True))
    assert found is not None
    assert found.turn_id == new.turn_id
    assert await Arrivals(turns.database).find_same(asked(user_id, fingerprint="h", retried=True)) is None


async def test_a_retry_does_not_find_a_turn_that_failed_or_is_older_than_a_minute(turns: Turns, user_id: str) -> None:
    failed, old = [asked(user_id, fingerprint=each) for each in "fo"]
    for arrival in (failed, old):
        await Arrivals(turns.database).open(new_turn(arrival))
    await turns.fail(failed.turn_id, LATE)
    await turns.database.run(
        "UPDATE turns SET created_at = created_at - interval '61 seconds' WHERE id = %(id)s", {"id": old.turn_id}
    )
    anywhere = {session: chat(cozy={"session_id": new_id()} if session else {}) for session in (False, True)}

    async def finds(fingerprint: str, session: bool) -> bool:
        retry = asked(user_id, anywhere[session], fingerprint=fingerprint, retried=True)
        return await Arrivals(turns.database).find_same(retry) is not None

    assert not await finds("f", session=False)
    assert await finds("f", session=True)
    assert not await finds("o", session=True)
