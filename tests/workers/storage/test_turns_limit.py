"""A user's turns above the limit wait for those that run, in their order, whatever happens at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ops.runtime import postgres
from schemas.faults import EngineTimeout
from schemas.turns import TurnState
from tests.workers.asked import BUNDLE, asked, column, in_session, let_age, new_turn
from tests.workers.storage.rows import add_session, add_user
from workers.storage.arrivals import Arrivals
from workers.storage.database import AWAY, Database
from workers.storage.turn_rows import Placed
from workers.storage.turns import Turns
from workers.storage.upkeep import Upkeep

LATE = EngineTimeout().record
LIMIT = 2


def limited(database: Database) -> Arrivals:
    return Arrivals(database, LIMIT)


async def opened(database: Database, user_id: str) -> tuple[str, str, TurnState]:
    """A turn that stands alone: its id, its session and whether it runs."""
    turn = new_turn(asked(user_id))
    placed = await limited(database).open(turn)
    assert placed
    return turn.arrival.turn_id, turn.session_id, placed.state


async def states(database: Database) -> list[str]:
    return await column(database, "SELECT state AS value FROM turns ORDER BY ord")


async def stranded(database: Database) -> list[str]:
    """The sessions that a sweep would release."""
    found = await Upkeep(database, LIMIT).sweep(10, 100, lease=3)
    assert found
    return list(found.sessions)


async def test_turns_above_the_limit_wait(database: Database, user_id: str) -> None:
    placed = [(await opened(database, user_id))[2] for _ in range(4)]
    assert placed == ["prepared", "prepared", "queued", "queued"]
    assert (await opened(database, await add_user(database)))[2] == TurnState.PREPARED


async def test_without_a_limit_every_turn_runs(database: Database, user_id: str) -> None:
    for _ in range(4):
        placed = await Arrivals(database).open(new_turn(asked(user_id)))
        assert placed
        assert placed.state is TurnState.PREPARED


async def test_of_many_at_once_as_many_run_as_the_limit_says(database: Database) -> None:
    """Taken in by as many processes, which share nothing but the database."""
    for _ in range(5):
        user_id = await add_user(database)
        placed = await asyncio.gather(*(limited(database).open(new_turn(asked(user_id))) for _ in range(12)))
        assert sorted(each.state for each in placed if each) == ["prepared"] * LIMIT + ["queued"] * 10


async def test_whoever_ends_lets_the_user_s_oldest_go_and_no_more_than_there_is_room_for(
    database: Database, turns: Turns, user_id: str
) -> None:
    made = [await opened(database, user_id) for _ in range(4)]
    (first, session_id, _), _, (third, _, _), _ = made
    assert await limited(database).release(session_id) == []
    await turns.fail(first, LATE)
    assert [ready.turn_id for ready in await limited(database).release(session_id)] == [third]
    assert await states(database) == ["failed", "prepared", "accepted", "queued"]


async def test_a_turn_that_was_let_go_on_is_named_until_it_is_prepared(
    database: Database, turns: Turns, user_id: str
) -> None:
    """Whoever let it may have died before it could tell. It is named where there is no room for others as well."""
    (first, session_id, _), *_, (third, _, _), _ = [await opened(database, user_id) for _ in range(LIMIT + 2)]
    await turns.fail(first, LATE)
    for _ in range(3):
        assert [ready.turn_id for ready in await limited(database).release(session_id)] == [third]
    assert await limited(database).prepare(third, BUNDLE)
    assert await limited(database).release(session_id) == []


@pytest.fixture
async def frozen(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """The pool of a process that freezes in the middle of a transaction, and is thrown out of it soon."""
    monkeypatch.setattr(postgres, "IDLE_SECONDS", 0.3)
    opened = await Database.open(database_url, size=1, name="frozen")
    yield opened
    await opened.close()


async def test_a_process_that_freezes_while_it_counts_keeps_nobody_else_waiting(
    database: Database, frozen: Database, user_id: str
) -> None:
    placed = list[Placed | None]()

    async def freeze() -> None:
        async with frozen.transaction() as held:
            await limited(frozen)._room_under_lock(held, user_id)
            placed.append(await limited(database).open(new_turn(asked(user_id))))

    with pytest.raises(AWAY):
        await freeze()
    assert [each.state for each in placed if each] == [TurnState.PREPARED]


async def test_a_process_that_freezes_before_its_commit_accepts_nothing_when_it_thaws(
    database: Database, frozen: Database, user_id: str
) -> None:
    """It could sleep for as long as it likes, and its gateway would not. Its rival gets the turn."""
    turn, placed = new_turn(asked(user_id)), list[Placed | None]()

    async def freeze() -> None:
        async with frozen.transaction() as held:
            assert await limited(frozen)._open(held, turn)
            placed.append(await Arrivals(database).open(turn))

    with pytest.raises(AWAY):
        await freeze()
    assert [each.state for each in placed if each] == [TurnState.PREPARED]


async def test_many_who_end_at_once_fill_the_room_exactly(database: Database, turns: Turns, user_id: str) -> None:
    made = [await opened(database, user_id) for _ in range(8)]

    async def end(turn_id: str, session_id: str) -> None:
        await turns.fail(turn_id, LATE)
        await limited(database).release(session_id)

    for turn in range(0, 8, LIMIT):
        await asyncio.gather(*(end(turn_id, session_id) for turn_id, session_id, _ in made[turn : turn + LIMIT]))
        left = 8 - LIMIT - turn
        assert (await states(database)).count("accepted") == min(LIMIT, left)
    assert await states(database) == ["failed"] * 8


async def test_a_session_s_turns_keep_their_order_and_a_busy_session_holds_up_no_other(
    database: Database, turns: Turns, user_id: str
) -> None:
    busy, free = [await add_session(database, user_id) for _ in range(2)]
    running = await in_session(turns, user_id, busy)
    waiting: dict[str, Any] = {"state": TurnState.QUEUED, "bundle": None}
    behind = [await in_session(turns, user_id, busy, **waiting) for _ in range(2)]
    elsewhere = await in_session(turns, user_id, free, **waiting)
    assert [ready.turn_id for ready in await limited(database).release(busy)] == [elsewhere]
    assert await limited(database).prepare(elsewhere, BUNDLE)
    await turns.fail(running, LATE)
    assert [ready.turn_id for ready in await limited(database).release(busy)] == [behind[0]]


async def test_a_turn_that_is_being_stopped_is_passed_over_and_not_waited_for(database: Database, user_id: str) -> None:
    first, *_ = [await opened(database, user_id) for _ in range(LIMIT + 2)]
    await database.run("UPDATE turns SET state = 'failed' WHERE state = 'prepared'", {})
    oldest = (await column(database, "SELECT id AS value FROM turns WHERE state = 'queued' ORDER BY ord"))[0]
    async with database.transaction() as held:
        await held.run("SELECT 1 FROM turns WHERE id = %(id)s FOR UPDATE", {"id": oldest})
        async with asyncio.timeout(2):
            released = await limited(database).release(first[1])
    assert len(released) == 1
    assert released[0].turn_id != oldest


async def test_an_arrival_and_an_end_at_once_leave_nobody_waiting_beside_room(
    database: Database, turns: Turns, user_id: str
) -> None:
    """Whoever comes second sees the other: the arrival releases itself after its commit, the end after its own."""
    arrivals = limited(database)
    for _ in range(20):
        running = [await opened(database, user_id) for _ in range(LIMIT)]
        turn = new_turn(asked(user_id))

        async def arrive() -> None:
            placed = await arrivals.open(turn)  # noqa: B023
            assert placed
            if placed.state is TurnState.QUEUED:
                await arrivals.release(turn.session_id)  # noqa: B023

        async def end() -> None:
            await turns.fail(running[0][0], LATE)  # noqa: B023
            await arrivals.release(running[0][1])  # noqa: B023

        await asyncio.gather(arrive(), end())
        assert (await states(database)).count("queued") == 0
        await database.run("UPDATE turns SET state = 'failed'", {})


async def test_a_user_whose_turns_wait_beside_room_is_found_by_the_sweep(
    database: Database, turns: Turns, user_id: str
) -> None:
    made = [await opened(database, user_id) for _ in range(LIMIT + 1)]
    turn_id, session_id, _ = made[-1]
    await let_age(database, turn_id, 1000)
    assert await stranded(database) == []
    await turns.fail(made[0][0], LATE)
    assert await stranded(database) == [session_id]
