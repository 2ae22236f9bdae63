"""What stands still is found: once, by one process, and only where nobody alive holds it and nobody else brings it."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from schemas.ids import new_id
from schemas.turns import TurnState
from tests.workers.asked import OTHER, OWNER, alive, claimed, column, finish, in_session, let_age, prepared
from tests.workers.storage.rows import add_session, add_turn
from workers.storage.database import Database
from workers.storage.memory import MemoryShelf
from workers.storage.turns import Turns
from workers.storage.upkeep import STOP_SECONDS, Found, Upkeep

LEASE = 3.0


async def found(turns: Turns, limit: int = 100, **backlogs: float) -> Found:
    return await Upkeep(turns.database).sweep(10, limit, lease=LEASE, backlogs=backlogs)


async def swept(turns: Turns, limit: int = 100, **backlogs: float) -> list[str]:
    return [turn.turn_id for turn in (await found(turns, limit, **backlogs)).turns]


async def test_what_stands_still_is_found_once_and_then_counts_as_touched(turns: Turns, user_id: str) -> None:
    still, fresh = [await prepared(turns, user_id) for _ in range(2)]
    await let_age(turns.database, still, 11)
    await let_age(turns.database, fresh, 9)
    assert await swept(turns) == [still]
    assert await swept(turns) == []


async def test_what_is_found_again_and_again_is_found_later_each_time(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    for patience in (10, 20, 40, 80, 160, 320, 640, 640):
        await let_age(turns.database, turn_id, patience - 1)
        assert await swept(turns) == []
        await let_age(turns.database, turn_id, 2)
        assert await swept(turns) == [turn_id]


async def test_a_turn_that_moved_is_found_as_soon_as_any_other(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    for _ in range(3):
        await let_age(turns.database, turn_id, 1000)
        assert await swept(turns) == [turn_id]
    await claimed(turns, turn_id)
    await let_age(turns.database, turn_id, 11)
    assert await swept(turns) == [turn_id]


async def test_what_may_still_wait_in_a_backlog_does_not_stand_still(turns: Turns, user_id: str) -> None:
    waiting, released = await prepared(turns, user_id), await prepared(turns, user_id, state=TurnState.ACCEPTED)
    for turn_id in (waiting, released):
        await let_age(turns.database, turn_id, 39)
    assert await swept(turns, prepared=30.0, accepted=30.0) == []
    assert await swept(turns, prepared=30.0) == [released]
    await let_age(turns.database, waiting, 2)
    assert await swept(turns, prepared=30.0) == [waiting]


async def test_what_an_owner_who_lives_holds_does_not_stand_still(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    await let_age(turns.database, turn_id, 1000)
    assert await swept(turns) == []
    await Upkeep(turns.database).give_up_lease(OWNER)
    assert await swept(turns) == [turn_id]


async def test_an_owner_that_is_silent_is_given_another_lease(turns: Turns, user_id: str) -> None:
    """It may be the database that was away; where the owner is dead its message comes back by itself."""
    turn_id = await prepared(turns, user_id)
    await claimed(turns, turn_id)
    await let_age(turns.database, turn_id, 1000)
    await alive(turns, seconds=-(LEASE - 1))
    assert await swept(turns) == []
    await alive(turns, seconds=-(LEASE + 1))
    assert await swept(turns) == [turn_id]


async def test_a_stopped_turn_that_its_living_owner_does_not_end_is_driven_on(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    stopped = "UPDATE turns SET stopped_at = clock_timestamp() - make_interval(secs => %(ago)s)"
    await let_age(turns.database, turn_id, STOP_SECONDS + 1)
    await turns.database.run(stopped, {"ago": STOP_SECONDS - 1})
    assert await swept(turns) == []
    await turns.database.run(stopped, {"ago": STOP_SECONDS + 1})
    assert await swept(turns) == [turn_id]
    assert await swept(turns) == []


async def test_every_running_state_can_stand_still_and_no_other(turns: Turns, user_id: str) -> None:
    made = {}
    for state in TurnState:
        session_id = await add_session(turns.database, user_id)
        made[state] = await add_turn(turns.database, user_id, session_id, state=state.value, round=1)
        await let_age(turns.database, made[state], 1000)
    still = await found(turns)
    running = {TurnState.ACCEPTED, TurnState.PREPARED, TurnState.GENERATING, TurnState.CALLING_TOOLS}
    assert {turn.turn_id: turn.state for turn in still.turns} == {made[state]: state.value for state in running}
    assert {turn.round for turn in still.turns} == {1}
    assert len(still.sessions) == 1


async def test_a_sweep_takes_the_oldest_and_no_more_than_its_limit(turns: Turns, user_id: str) -> None:
    ids = [await prepared(turns, user_id) for _ in range(4)]
    for age, turn_id in enumerate(ids, 100):
        await let_age(turns.database, turn_id, age)
    assert set(await swept(turns, limit=3)) == set(ids[1:])
    assert await swept(turns, limit=3) == ids[:1]


async def may_sweep(upkeep: Upkeep, patience: float = 60) -> bool:
    async with upkeep.sweeping(patience) as ours:
        return ours


async def test_one_process_at_a_time_sweeps(database: Database) -> None:
    upkeep = Upkeep(database)
    async with upkeep.sweeping(60) as ours:
        assert ours
        assert not await may_sweep(upkeep)
    with pytest.raises(LookupError):
        async with upkeep.sweeping(60):
            raise LookupError
    assert await may_sweep(upkeep)


async def test_one_that_sweeps_and_freezes_is_followed_by_another(database: Database) -> None:
    upkeep = Upkeep(database)
    frozen = upkeep.sweeping(0.1)
    assert await frozen.__aenter__()
    async with asyncio.timeout(10):
        while not await may_sweep(upkeep):
            pass
    with pytest.raises(psycopg.Error):
        await frozen.__aexit__(None, None, None)


async def test_a_session_whose_queue_nobody_moves_is_found(turns: Turns, user_id: str) -> None:
    moving, stuck = [await add_session(turns.database, user_id) for _ in range(2)]
    await in_session(turns, user_id, moving)
    for session_id in (moving, stuck):
        queued = await in_session(turns, user_id, session_id, state=TurnState.QUEUED, bundle=None)
        await let_age(turns.database, queued, 11)
    assert (await found(turns)).sessions == [stuck]


async def ended(turns: Turns, user_id: str, seconds_ago: float) -> str:
    turn_id = await prepared(turns, user_id)
    await finish(turns, await claimed(turns, turn_id))
    age = "UPDATE turns SET finished_at = finished_at - make_interval(secs => %(age)s) WHERE id = %(id)s"
    await turns.database.run(age, {"age": seconds_ago, "id": turn_id})
    return turn_id


async def test_ended_turns_of_which_memory_never_heard_are_found(turns: Turns, user_id: str) -> None:
    untold, told, _, _ = [await ended(turns, user_id, seconds) for seconds in (20, 20, 5, 200)]
    await MemoryShelf(turns.database).note([told])
    assert [turn.turn_id for turn in await Upkeep(turns.database).untold(10, 100, 9)] == [untold]


@pytest.mark.parametrize("state", [TurnState.FAILED, TurnState.CANCELLED, TurnState.INTERRUPTED])
async def test_memory_hears_of_every_end(turns: Turns, user_id: str, state: TurnState) -> None:
    turn_id = await ended(turns, user_id, 20)
    await turns.database.run("UPDATE turns SET state = %(state)s", {"state": state.value})
    assert [turn.turn_id for turn in await Upkeep(turns.database).untold(10, 100, 9)] == [turn_id]


async def test_a_lease_is_renewed_and_those_of_the_long_dead_are_cleared(turns: Turns, database: Database) -> None:
    await alive(turns, OTHER, seconds=-3601)
    await alive(turns, OWNER, seconds=-5)
    await alive(turns, OWNER, seconds=60)
    left = await column(database, "SELECT worker_id AS value FROM leases WHERE expires_at > now()")
    assert left == [OWNER]
    assert await column(database, "SELECT count(*) AS value FROM leases") == [1]


async def test_a_lease_that_a_clock_set_back_left_far_ahead_ends_a_lease_from_now(
    turns: Turns, database: Database
) -> None:
    await alive(turns, OTHER, seconds=3600)
    await alive(turns, OWNER, seconds=10)
    ahead = "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 AS value FROM leases"
    (left,) = await column(database, f"{ahead} WHERE worker_id = %(a)s", OTHER)
    assert 0 < left <= 10


async def test_many_leases_are_renewed_side_by_side(turns: Turns, database: Database) -> None:
    await asyncio.gather(*(alive(turns, new_id()) for _ in range(8)))
    assert await column(database, "SELECT count(*) AS value FROM leases") == [8]


async def parted_lives(database: Database) -> bool:
    """Whether a worker that does not hear the bus any more gets another lease."""
    upkeep, lease = Upkeep(database), "SELECT expires_at > now() + interval '30 seconds' AS value FROM leases"
    await upkeep.renew_lease(OWNER, "generation", 10, slots=8)
    await upkeep.renew_lease(OWNER, "generation", 60, slots=0, hears=False)
    (lives,) = await column(database, f"{lease} WHERE worker_id = %(a)s AND slots = 0", OWNER)
    return bool(lives)


async def test_who_does_not_hear_the_bus_lives_no_longer_where_another_of_its_stage_can_be_given_its_turns(
    database: Database,
) -> None:
    await Upkeep(database).renew_lease(OTHER, "generation", 60, slots=8)
    assert not await parted_lives(database)


@pytest.mark.parametrize(
    ("stage", "seconds", "slots"),
    [("generation", 60, 0), ("generation", -1, 8), ("tool_execution", 60, 8)],
    ids=["that hears it no more", "that is dead", "of another stage"],
)
async def test_who_does_not_hear_the_bus_keeps_its_turns_beside_one(
    database: Database, stage: str, seconds: float, slots: int
) -> None:
    await Upkeep(database).renew_lease(OTHER, stage, seconds, slots=slots)
    assert await parted_lives(database)


async def test_who_hears_the_bus_is_renewed_beside_any_other(database: Database) -> None:
    upkeep = Upkeep(database)
    for seconds in (-1, 60):
        for worker_id, slots in ((OTHER, 8), (OWNER, 0)):
            await upkeep.renew_lease(worker_id, "generation", seconds, slots=slots)
    assert await column(database, "SELECT expires_at > now() AS value FROM leases") == [True, True]


async def test_a_refusal_is_forgotten_after_an_hour(database: Database) -> None:
    young, old = new_id(), new_id()
    refuse = "INSERT INTO refusals VALUES (%(question)s, clock_timestamp() - make_interval(mins => %(minutes)s))"
    for question, minutes in ((young, 59), (old, 61)):
        await database.run(refuse, {"question": question, "minutes": minutes})
    assert await Upkeep(database).forget_refusals() == 1
    assert await column(database, "SELECT question AS value FROM refusals") == [young]
