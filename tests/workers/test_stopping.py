"""Stopping turns: what the commit decides, and who is told of it."""

from __future__ import annotations

import asyncio

import pytest
from psycopg import Rollback

from ops.runtime.bus import Bus
from schemas import subjects
from schemas.ids import new_id
from schemas.openai import Usage
from schemas.replies import Fence, Finished
from schemas.turns import ENDS, TurnCompleted, TurnPrepared, TurnReleased, TurnState, TurnToolsCalled
from tests.workers.asked import (
    OTHER,
    alive,
    answer,
    asked,
    chat,
    claimed,
    column,
    finish,
    in_session,
    new_turn,
    prepared,
    reply,
)
from tests.workers.sent import events, frames
from tests.workers.storage.rows import add_session, add_turn, add_user
from tests.workers.tool_execution.toolbox import calling
from workers.endings import Endings
from workers.stopping import Stopping
from workers.stops import Stops
from workers.storage.arrivals import Arrivals
from workers.storage.turns import STOPPED_BEFORE, Turns
from workers.storage.turns_read import TurnsRead

S = TurnState
AT_ONCE = (S.QUEUED, S.ACCEPTED, S.PREPARED, S.AWAITING_APPROVAL)


@pytest.fixture
def stopping(turns: Turns, bus: Bus) -> Stopping:
    return Stopping(turns, Endings(turns, Arrivals(turns.database), bus), bus)


async def state_of(turns: Turns, turn_id: str) -> str:
    stand = await turns.stand(turn_id)
    assert stand is not None
    return stand.state


@pytest.mark.parametrize("state", AT_ONCE)
async def test_a_turn_that_nobody_writes_ends_with_the_stop(
    stopping: Stopping, turns: Turns, user_id: str, bus: Bus, state: TurnState
) -> None:
    session_id = await add_session(turns.database, user_id)
    turn_id = await add_turn(turns.database, user_id, session_id, state=state.value, epoch=1)
    waiting = await in_session(turns, user_id, session_id, state=S.QUEUED, bundle=None)
    await stopping.stop(turn_id, user_id)
    assert await state_of(turns, turn_id) == S.CANCELLED
    assert await frames(bus, turn_id) == [Fence(2), Finished(2, 0, ["stop"], Usage(), 0, 0, "cancelled", True)]
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == [TurnCompleted(turn_id=turn_id)]
    assert await events(bus, subjects.TURN_REQUESTED, TurnReleased) == [TurnReleased(turn_id=waiting)]


@pytest.mark.parametrize("state", [S.QUEUED, S.PREPARED])
async def test_each_choice_of_a_turn_that_had_not_begun_ends_with_the_stop(
    stopping: Stopping, turns: Turns, user_id: str, bus: Bus, state: TurnState
) -> None:
    arrival = asked(user_id, chat(n=3))
    assert await Arrivals(turns.database).open(new_turn(arrival, state=state)) is not None
    await stopping.stop(arrival.turn_id, user_id)
    told = (await frames(bus, arrival.turn_id))[-1]
    assert isinstance(told, Finished)
    assert told.finish_reasons == ["stop"] * 3
    replied = await TurnsRead(turns.database).replied(user_id, arrival.turn_id)
    assert replied is not None
    assert replied.end.frame() == told


async def test_what_earlier_rounds_have_shown_is_the_stopped_turn_s_reply(
    stopping: Stopping, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await calling(turns, user_id, ("tea", "{}"))
    tools = await turns.claim_tools(turn_id, 0, OTHER)
    assert tools is not None
    assert await turns.finish_tools(tools, [(new_id(), "c1", "hot")])
    await stopping.stop(turn_id, user_id)
    end = await turns.end_of(turn_id)
    assert end is not None
    assert (end.state, (await frames(bus, turn_id))[-1]) == (S.CANCELLED, end.frame())
    assert await turns.claim(turn_id, 1, OTHER) is None


async def test_who_owns_a_turn_at_work_hears_of_it_and_so_does_another(
    stopping: Stopping, turns: Turns, user_id: str, bus: Bus
) -> None:
    stops = Stops(bus)
    await stops.open()
    turn_id = await prepared(turns, user_id)
    with stops.of(turn_id) as stop:
        held = await claimed(turns, turn_id)
        await stopping.stop(turn_id, user_id)
        async with asyncio.timeout(1):
            await stop.wait()
    assert await events(bus, subjects.TURN_PREPARED, TurnPrepared) == [TurnPrepared(turn_id=turn_id)]
    assert await state_of(turns, turn_id) == S.GENERATING
    assert not await turns.call_tools(held, reply("x"), answer(turn_id, "x"), [])
    assert await turns.finish(held, S.CANCELLED, reply("x"), [answer(turn_id, "x")], finish_reasons=["stop"])


async def test_a_round_of_tools_is_driven_to_its_record(
    stopping: Stopping, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await calling(turns, user_id, ("tea", "{}"))
    await stopping.stop(turn_id, user_id)
    assert await events(bus, subjects.TURN_TOOLS_CALLED, TurnToolsCalled) == [TurnToolsCalled(turn_id=turn_id, round=0)]
    assert await state_of(turns, turn_id) == S.CALLING_TOOLS
    tools = await turns.claim_tools(turn_id, 0, OTHER)
    assert tools is not None
    assert tools.stopped
    assert await turns.finish_tools(tools, [(new_id(), "c1", "hot")])
    assert (await claimed(turns, turn_id, 1)).stopped


async def test_an_owner_that_does_not_hear_of_it_loses_the_turn(stopping: Stopping, turns: Turns, user_id: str) -> None:
    await alive(turns)
    turn_id = await prepared(turns, user_id)
    await claimed(turns, turn_id)
    await stopping.stop(turn_id, user_id)
    assert await turns.claim(turn_id, 0, OTHER) is None
    await turns.database.run("UPDATE turns SET touched_at = stopped_at - interval '1 hour'", {})
    async with asyncio.timeout(3):
        while (taken := await turns.claim(turn_id, 0, OTHER)) is None:
            await stopping.stop(turn_id, user_id)  # asking again must not put it off
    assert taken.stopped


async def test_what_waited_for_a_yes_is_answered_in_the_conversation(
    stopping: Stopping, turns: Turns, user_id: str
) -> None:
    turn_id = await calling(turns, user_id, ("tea", "{}"), ("pay", "{}"))
    await turns.end_call((await turns.asked_calls(turn_id, 0))[0].id, "done", "hot")
    await turns.database.run("UPDATE turns SET state = 'awaiting_approval'", {})
    await stopping.stop(turn_id, user_id)
    calls = await turns.asked_calls(turn_id, 0)
    assert [(call.status, call.result) for call in calls] == [("done", "hot"), ("denied", STOPPED_BEFORE)]
    told = "SELECT metadata ->> 'tool_call_id' || ': ' || (content #>> '{}') AS value FROM messages WHERE role = 'tool'"
    assert await column(turns.database, told + " ORDER BY ord") == ["c1: hot", f"c2: {STOPPED_BEFORE}"]


async def test_a_turn_that_has_ended_and_another_s_stay_as_they_are(
    stopping: Stopping, turns: Turns, user_id: str, bus: Bus
) -> None:
    ended = await prepared(turns, user_id)
    await finish(turns, await claimed(turns, ended))
    another_s = await prepared(turns, await add_user(turns.database))
    for turn_id in (ended, another_s, new_id()):
        await stopping.stop(turn_id, user_id)
        assert await frames(bus, turn_id) == []
    assert (await state_of(turns, ended), await state_of(turns, another_s)) == (S.COMPLETED, S.PREPARED)


async def test_asked_again_it_tells_again(stopping: Stopping, turns: Turns, user_id: str, bus: Bus) -> None:
    """Whoever committed the stop before may have died before it told anybody."""
    turn_id = await prepared(turns, user_id)
    await turns.stop(user_id, [turn_id])
    await stopping.stop(turn_id, user_id)
    before = await frames(bus, turn_id)
    assert isinstance(before[-1], Finished)
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == [TurnCompleted(turn_id=turn_id)]
    await stopping.stop(turn_id, user_id)
    assert await frames(bus, turn_id) == before


async def test_all_that_a_session_has_not_answered_is_stopped_in_the_asker_s_transaction(
    stopping: Stopping, turns: Turns, user_id: str, bus: Bus
) -> None:
    session_id = await add_session(turns.database, user_id)
    first = await in_session(turns, user_id, session_id)
    await claimed(turns, first)
    second = await in_session(turns, user_id, session_id, state=S.QUEUED, bundle=None)
    third = await in_session(turns, user_id, session_id, state=S.QUEUED, bundle=None)
    other = await in_session(turns, user_id, await add_session(turns.database, user_id))
    async with turns.database.transaction() as held:
        await stopping.stop_before(held, session_id, user_id)
        raise Rollback
    assert await state_of(turns, third) == S.QUEUED
    async with turns.database.transaction() as held:
        stopped = await stopping.stop_before(held, session_id, user_id)
    assert await frames(bus, second) == []
    await stopping.tell(stopped)
    assert [(row.turn_id, row.state) for row in sorted(stopped, key=lambda row: row.turn_id)] == [
        (first, S.GENERATING), (second, S.CANCELLED), (third, S.CANCELLED),
    ]  # fmt: skip
    assert await state_of(turns, other) not in ENDS
    assert isinstance((await frames(bus, third))[-1], Finished)


async def test_what_was_stopped_while_it_waited_stands_behind_the_reply_it_waited_for(
    stopping: Stopping, turns: Turns, user_id: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    running = await in_session(turns, user_id, session_id, "one")
    waiting = await in_session(turns, user_id, session_id, "two", state=S.QUEUED, bundle=None)
    held = await claimed(turns, running)
    await stopping.stop(waiting, user_id)
    await finish(turns, held, "answer")
    said = "SELECT content #>> '{}' AS value FROM messages ORDER BY ord"
    assert await column(turns.database, said) == ["one", "answer", "two"]
