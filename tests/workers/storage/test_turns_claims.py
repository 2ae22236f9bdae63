"""Who may claim a turn, and when: a stopped turn's silent owner has a second, any other its lease."""

from __future__ import annotations

import pytest

from schemas.faults import EngineTimeout
from schemas.ids import new_id
from tests.workers.asked import OTHER, OWNER, alive, answer, calls_of, claimed, finish, let_age, prepared, reply
from workers.storage.turn_rows import Ended
from workers.storage.turns import Turns


async def stop(turns: Turns, turn_id: str, seconds_ago: float) -> None:
    """Let the turn's user have said stop so long ago."""
    stopped = "UPDATE turns SET stopped_at = clock_timestamp() - make_interval(secs => %(ago)s) WHERE id = %(id)s"
    await turns.database.run(stopped, {"ago": seconds_ago, "id": turn_id})


async def held_by_who_lives(turns: Turns, user_id: str) -> str:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    return turn_id


async def test_a_stopped_turn_is_taken_from_an_owner_that_does_not_end_it(turns: Turns, user_id: str) -> None:
    turn_id = await held_by_who_lives(turns, user_id)
    await let_age(turns.database, turn_id, 5)
    await stop(turns, turn_id, 0.5)
    assert await turns.claim(turn_id, 0, OTHER) is None
    await stop(turns, turn_id, 1.5)
    taken = await turns.claim(turn_id, 0, OTHER)
    assert taken is not None
    assert (taken.stopped, taken.taken_over) == (True, True)


async def test_who_has_just_taken_a_stopped_turn_has_a_second_too(turns: Turns, user_id: str) -> None:
    turn_id = await held_by_who_lives(turns, user_id)
    await stop(turns, turn_id, 60)
    assert await turns.claim(turn_id, 0, OTHER) is None
    await let_age(turns.database, turn_id, 1.5)
    assert await turns.claim(turn_id, 0, OTHER) is not None


async def test_stopped_calls_are_taken_from_an_owner_that_does_not_end_them(turns: Turns, user_id: str) -> None:
    turn_id = await held_by_who_lives(turns, user_id)
    held = await claimed(turns, turn_id)
    await turns.call_tools(held, reply(), answer(turn_id, ""), calls_of(turn_id, "clock"))
    calling = await turns.claim_tools(turn_id, 0, OWNER)
    assert calling is not None
    assert not calling.stopped
    await stop(turns, turn_id, 60)
    assert await turns.claim_tools(turn_id, 0, OTHER) is None
    await let_age(turns.database, turn_id, 1.5)
    taken = await turns.claim_tools(turn_id, 0, OTHER)
    assert taken is not None
    assert taken.stopped


async def claim_in(turns: Turns, turn_id: str) -> float:
    stand = await turns.stand(turn_id)
    assert stand is not None
    return stand.claim_in


async def test_who_comes_too_early_is_told_for_how_long(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    assert await claim_in(turns, turn_id) == 0
    await alive(turns, seconds=7)
    await claimed(turns, turn_id)
    assert 6 < await claim_in(turns, turn_id) <= 7
    await stop(turns, turn_id, 0)
    assert 0.5 < await claim_in(turns, turn_id) <= 1
    await let_age(turns.database, turn_id, 5)
    await stop(turns, turn_id, 5)
    assert await claim_in(turns, turn_id) == 0


@pytest.mark.parametrize("owner", [OWNER, new_id()], ids=["its own", "another"])
async def test_a_dead_owner_s_turn_is_there_for_the_taking(turns: Turns, user_id: str, owner: str) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns, OWNER, seconds=-1)
    await claimed(turns, turn_id, owner=owner)
    assert await claim_in(turns, turn_id) == 0


async def test_an_owner_finds_its_own_end_and_no_other_s(turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    assert await turns.ended_by(held) is None
    await finish(turns, held)
    assert await turns.ended_by(held) == Ended(session_id=held.session_id)
    other = await claimed(turns, await prepared(turns, user_id))
    await turns.fail(other.turn_id, EngineTimeout().record)
    assert await turns.ended_by(other) is None


async def test_an_owner_finds_its_own_results_and_no_other_s(turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    await turns.call_tools(held, reply(), answer(held.turn_id, ""), calls_of(held.turn_id, "clock"))
    calling = await turns.claim_tools(held.turn_id, 0, OWNER)
    assert calling is not None
    assert not await turns.tools_finished_by(calling)
    assert await turns.finish_tools(calling, [(new_id(), "c1", "noon")])
    assert await turns.tools_finished_by(calling)
    await claimed(turns, held.turn_id, round=1)
    assert not await turns.tools_finished_by(calling)
