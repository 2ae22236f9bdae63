"""What follows a turn's end: its reader is told, and the session's next turn may run."""

from __future__ import annotations

import pytest

from ops.runtime.bus import Bus
from schemas import subjects
from schemas.faults import EngineTimeout
from schemas.ids import new_id
from schemas.replies import Failed, Fence
from schemas.turns import TurnReleased, TurnState
from tests.workers.asked import answer, claimed, in_session, prepared, reply
from tests.workers.sent import events, frames
from tests.workers.storage.rows import add_session
from workers.endings import Endings
from workers.storage.arrivals import Arrivals
from workers.storage.turns import Turns

LATE = EngineTimeout().record


@pytest.fixture
def endings(turns: Turns, bus: Bus) -> Endings:
    return Endings(turns, Arrivals(turns.database), bus)


async def released(bus: Bus) -> list[str]:
    return [event.turn_id for event in await events(bus, subjects.TURN_REQUESTED, TurnReleased)]


async def test_a_failed_turn_s_reader_hears_of_it_and_no_more_of_its_owner(
    endings: Endings, turns: Turns, user_id: str, bus: Bus
) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    await endings.fail(held.turn_id, LATE)
    assert await frames(bus, held.turn_id) == [Fence(2), Failed(2, 0, LATE)]
    said = answer(held.turn_id, "x")
    assert await turns.finish(held, TurnState.COMPLETED, reply("x"), [said]) is None


async def test_a_turn_that_has_ended_stays_as_it_is(endings: Endings, turns: Turns, user_id: str, bus: Bus) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    await turns.finish(held, TurnState.COMPLETED, reply("x"), [answer(held.turn_id, "x")])
    for turn_id in (held.turn_id, new_id()):
        await endings.fail(turn_id, LATE)
        assert await frames(bus, turn_id) == []
    end = await turns.end_of(held.turn_id)
    assert end is not None
    assert end.state == TurnState.COMPLETED


async def test_a_failed_turn_lets_its_session_go_on(endings: Endings, turns: Turns, user_id: str, bus: Bus) -> None:
    session_id = await add_session(turns.database, user_id)
    first = await in_session(turns, user_id, session_id)
    second = await in_session(turns, user_id, session_id, state=TurnState.QUEUED, bundle=None)
    await endings.fail(first, LATE)
    assert await released(bus) == [second]


async def test_a_release_where_nobody_waits_says_nothing(
    endings: Endings, turns: Turns, user_id: str, bus: Bus
) -> None:
    await endings.release(await add_session(turns.database, user_id))
    assert await released(bus) == []


async def test_a_turn_is_announced_once_unless_it_stood_still(endings: Endings, bus: Bus) -> None:
    turn_id = new_id()
    for again in ("", "", ".again"):
        await endings.announce(turn_id, 0, again=again)
    assert await released(bus) == [turn_id, turn_id]
