"""Order among turns in PostgreSQL: who waits, who is let go on, what stands still, and who is alive."""

from __future__ import annotations

import asyncio
from typing import Any

from schemas.faults import EngineTimeout
from schemas.ids import new_id
from schemas.turns import TurnState
from tests.workers.asked import (
    BUNDLE,
    OTHER,
    OWNER,
    alive,
    asked,
    claimed,
    column,
    finish,
    in_session,
    let_age,
    new_turn,
    prepared,
    reply,
)
from tests.workers.storage.rows import add_session, add_turn, add_user
from workers.storage.arrivals import Arrivals
from workers.storage.database import Database
from workers.storage.turns import Turns
from workers.storage.upkeep import SWEEP_LOCK, Upkeep

QUEUED: dict[str, Any] = {"state": TurnState.QUEUED, "bundle": None}
LATE = EngineTimeout().record


async def test_whoever_ends_a_turn_hears_that_others_wait(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    held = await claimed(turns, await in_session(turns, user_id, session_id))
    await in_session(turns, user_id, session_id, **QUEUED)
    ended = await turns.finish(held, TurnState.COMPLETED, reply("x"), [])
    assert ended is not None
    assert (ended.session_id, ended.others_wait) == (session_id, True)


async def test_waiting_turns_are_let_go_on_in_their_order_one_at_a_time(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    waiting = [await in_session(turns, user_id, session_id, str(i), **QUEUED) for i in range(3)]
    for turn_id in waiting:
        ready = await Arrivals(turns.database).release_next(session_id)
        assert ready is not None
        assert ready.turn_id == turn_id
        assert await Arrivals(turns.database).release_next(session_id) is None
        await turns.fail(turn_id, LATE)
    assert await Arrivals(turns.database).release_next(session_id) is None


async def test_of_many_who_release_at_once_one_does(turns: Turns, user_id: str) -> None:
    for _ in range(10):
        session_id = await add_session(turns.database, user_id)
        first, _ = [await in_session(turns, user_id, session_id, **QUEUED) for _ in range(2)]
        released = await asyncio.gather(*(Arrivals(turns.database).release_next(session_id) for _ in range(4)))
        assert [ready.turn_id for ready in released if ready] == [first]


async def test_a_turn_is_not_released_while_another_of_its_session_runs(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    running = await in_session(turns, user_id, session_id)
    await in_session(turns, user_id, session_id, **QUEUED)
    assert await Arrivals(turns.database).release_next(session_id) is None
    await claimed(turns, running)
    assert await Arrivals(turns.database).release_next(session_id) is None


async def test_a_released_turn_s_messages_stand_behind_the_reply_it_waited_for(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    held = await claimed(turns, await in_session(turns, user_id, session_id, "1"))
    waiting = await in_session(turns, user_id, session_id, "2", **QUEUED)
    await finish(turns, held, "re 1")
    await Arrivals(turns.database).release_next(session_id)
    history = await Arrivals(turns.database).history(turns.database, session_id, waiting, 10)
    assert [message.content for message in history] == ["1", "re 1"]
    query = "SELECT content AS value FROM messages ORDER BY ord"
    assert await column(turns.database, query) == ["1", "re 1", "2"]


async def test_a_released_turn_is_prepared_once(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    turn_id = await in_session(turns, user_id, session_id, **QUEUED)
    assert await Arrivals(turns.database).released(turn_id) is None
    assert not await Arrivals(turns.database).prepare(turn_id, BUNDLE)
    await Arrivals(turns.database).release_next(session_id)
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


async def test_a_retry_finds_its_callers_newest_turn_with_that_body(turns: Turns, user_id: str) -> None:
    other = await add_user(turns.database)
    old, new = [asked(user_id, fingerprint="f") for _ in range(2)]
    for arrival in (old, new, asked(user_id, fingerprint="g"), asked(other, fingerprint="f")):
        await Arrivals(turns.database).open(new_turn(arrival))
    found = await Arrivals(turns.database).find_retried(user_id, "f")
    assert found is not None
    assert found.turn_id == new.turn_id
    assert await Arrivals(turns.database).find_retried(user_id, "h") is None


async def test_a_retry_does_not_find_a_turn_that_failed_or_is_older_than_a_minute(turns: Turns, user_id: str) -> None:
    failed, old = [asked(user_id, fingerprint=each) for each in "fo"]
    for arrival in (failed, old):
        await Arrivals(turns.database).open(new_turn(arrival))
    await turns.fail(failed.turn_id, LATE)
    await turns.database.run(
        "UPDATE turns SET created_at = created_at - interval '61 seconds' WHERE id = %(id)s", {"id": old.turn_id}
    )
    assert await Arrivals(turns.database).find_retried(user_id, "f") is None
    assert await Arrivals(turns.database).find_retried(user_id, "o") is None


async def swept(turns: Turns, limit: int = 100) -> list[str]:
    standing, _ = await Upkeep(turns.database).sweep(10, limit)
    return [turn.turn_id for turn in standing]


async def test_what_stands_still_is_found_once_and_then_counts_as_touched(turns: Turns, user_id: str) -> None:
    still, fresh = [await prepared(turns, user_id) for _ in range(2)]
    await let_age(turns.database, still, 11)
    await let_age(turns.database, fresh, 9)
    assert await swept(turns) == [still]
    assert await swept(turns) == []


async def test_what_an_owner_who_lives_holds_does_not_stand_still(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    await let_age(turns.database, turn_id, 1000)
    assert await swept(turns) == []
    await Upkeep(turns.database).give_up_lease(OWNER)
    assert await swept(turns) == [turn_id]


async def test_every_running_state_can_stand_still_and_no_other(turns: Turns, user_id: str) -> None:
    made = {}
    for state in TurnState:
        session_id = await add_session(turns.database, user_id)
        made[state] = await add_turn(turns.database, user_id, session_id, state=state.value, round=1)
        await let_age(turns.database, made[state], 1000)
    standing, sessions = await Upkeep(turns.database).sweep(10, 100)
    running = {TurnState.ACCEPTED, TurnState.PREPARED, TurnState.GENERATING, TurnState.CALLING_TOOLS}
    assert {turn.turn_id: turn.state for turn in standing} == {made[state]: state.value for state in running}
    assert {turn.round for turn in standing} == {1}
    assert len(sessions) == 1


async def test_a_sweep_takes_the_oldest_and_no_more_than_its_limit(turns: Turns, user_id: str) -> None:
    ids = [await prepared(turns, user_id) for _ in range(4)]
    for age, turn_id in enumerate(ids, 100):
        await let_age(turns.database, turn_id, age)
    assert set(await swept(turns, limit=3)) == set(ids[1:])
    assert await swept(turns, limit=3) == ids[:1]


async def test_one_process_at_a_time_sweeps(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    await let_age(turns.database, turn_id, 1000)
    async with turns.database.transaction() as held:
        await held.run("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": SWEEP_LOCK})
        assert await Upkeep(turns.database).sweep(10, 100) == ([], [])
    assert await swept(turns) == [turn_id]


async def test_a_session_whose_queue_nobody_moves_is_found(turns: Turns, user_id: str) -> None:
    moving, stuck = [await add_session(turns.database, user_id) for _ in range(2)]
    await in_session(turns, user_id, moving)
    for session_id in (moving, stuck):
        await let_age(turns.database, await in_session(turns, user_id, session_id, **QUEUED), 11)
    _, sessions = await Upkeep(turns.database).sweep(10, 100)
    assert sessions == [stuck]


async def test_a_lease_is_renewed_and_those_of_the_long_dead_are_cleared(turns: Turns, database: Database) -> None:
    await alive(turns, OTHER, seconds=-3601)
    await alive(turns, OWNER, seconds=-5)
    await alive(turns, OWNER, seconds=60)
    left = await column(database, "SELECT worker_id AS value FROM leases WHERE expires_at > now()")
    assert left == [OWNER]
    assert await column(database, "SELECT count(*) AS value FROM leases") == [1]
