"""A round of calls: run side by side, committed in order, and the model speaks again."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from ops.runtime.bus import Bus, BusUnavailable
from schemas import subjects
from schemas.faults import EngineInternal
from schemas.ids import new_id
from schemas.replies import Failed, Progress
from schemas.turns import TurnPrepared, TurnState
from tests.workers.asked import OTHER, alive, column
from tests.workers.sent import events, frames
from tests.workers.tool_execution.conftest import MakeDoor, called
from tests.workers.tool_execution.toolbox import Watched, calling
from workers import insisting
from workers.delivery import CLAIM_AFTER, Fenced, Later, is_away
from workers.stopping import Stopping
from workers.storage.database import Database
from workers.storage.turn_rows import CallStart, ToolsClaimed
from workers.storage.turns import STOPPED_BEFORE, Turns
from workers.tool_execution.calls import BROKEN_OFF

RESULTS = "SELECT content AS value FROM messages WHERE role = 'tool' ORDER BY ord"


async def test_results_are_committed_in_the_order_of_the_calls_whoever_is_first(
    make_door: MakeDoor, turns: Turns, user_id: str, bus: Bus
) -> None:
    slow, quick = Watched("slow"), Watched("quick")
    turn_id = await calling(turns, user_id, ("slow", '{"do": "wait", "say": "1"}'), ("quick", '{"say": "2"}'))
    work = asyncio.create_task(make_door(slow, quick).on_tools_called(called(turn_id)))
    await asyncio.gather(slow.started.wait(), quick.started.wait())
    slow.go_on.set()
    await work
    assert await column(turns.database, RESULTS) == ["1", "2"]
    stand = await turns.stand(turn_id)
    assert stand is not None
    assert (stand.state, stand.round) == (TurnState.PREPARED, 1)
    prepared = await events(bus, subjects.TURN_PREPARED, TurnPrepared)
    assert prepared == [TurnPrepared(turn_id=turn_id, round=1)]


async def test_progress_is_shown_as_the_claim_s_owner(
    make_door: MakeDoor, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await calling(turns, user_id, ("tea", "{}"))
    await make_door(Watched("tea")).on_tools_called(called(turn_id))
    shown = [Progress(2, "tea", "c1", state) for state in ("running", "done")]
    assert await frames(bus, turn_id) == shown


async def test_one_tool_that_breaks_does_not_break_the_others(make_door: MakeDoor, turns: Turns, user_id: str) -> None:
    turn_id = await calling(turns, user_id, ("tea", '{"do": "break"}'), ("tea", '{"say": "hot"}'))
    await make_door(Watched("tea")).on_tools_called(called(turn_id))
    assert await column(turns.database, RESULTS) == ["The tool broke. Answer without it.", "hot"]


async def test_a_tool_the_bundle_does_not_name_is_denied(make_door: MakeDoor, turns: Turns, user_id: str) -> None:
    pay = Watched("pay")
    turn_id = await calling(turns, user_id, ("tea", "{}"))
    await turns.database.run("UPDATE tool_calls SET name = 'pay'", {})
    await make_door(Watched("tea"), pay).on_tools_called(called(turn_id))
    assert pay.effects == []
    assert await column(turns.database, "SELECT status AS value FROM tool_calls") == ["denied"]


async def test_calls_in_the_hands_of_who_lives_are_left_for_later(
    make_door: MakeDoor, turns: Turns, user_id: str
) -> None:
    turn_id = await calling(turns, user_id, ("tea", "{}"))
    await alive(turns, OTHER, 2)
    await turns.claim_tools(turn_id, 0, OTHER)
    with pytest.raises(Later) as later:
        await make_door(Watched("tea")).on_tools_called(called(turn_id))
    assert 1 < later.value.delay <= 2 + CLAIM_AFTER


async def test_an_owner_that_was_followed_meanwhile_commits_nothing(
    make_door: MakeDoor, turns: Turns, user_id: str, bus: Bus
) -> None:
    slow = Watched("slow")
    turn_id = await calling(turns, user_id, ("slow", '{"do": "wait"}'))
    work = asyncio.create_task(make_door(slow).on_tools_called(called(turn_id)))
    await slow.started.wait()
    assert await turns.claim_tools(turn_id, 0, OTHER) is not None
    slow.go_on.set()
    with pytest.raises(Fenced):
        await work
    assert await column(turns.database, RESULTS) == []
    assert await events(bus, subjects.TURN_PREPARED, TurnPrepared) == []


async def test_a_round_that_was_committed_and_not_handed_on_is_handed_on(
    make_door: MakeDoor, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await calling(turns, user_id, ("tea", "{}"))
    held = await turns.claim_tools(turn_id, 0, OTHER)
    assert held is not None
    assert await turns.finish_tools(held, [(new_id(), "c1", "hot")])
    tea = Watched("tea")
    await make_door(tea).on_tools_called(called(turn_id))
    assert await events(bus, subjects.TURN_PREPARED, TurnPrepared) == [TurnPrepared(turn_id=turn_id, round=1)]
    assert tea.effects == []


async def test_a_turn_that_was_failed_by_a_process_that_died_is_told(
    make_door: MakeDoor, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await calling(turns, user_id, ("tea", "{}"))
    await turns.fail(turn_id, EngineInternal().record)
    await make_door(Watched("tea")).on_tools_called(called(turn_id))
    assert isinstance((await frames(bus, turn_id))[-1], Failed)


async def test_a_turn_nobody_knows_and_an_old_round_are_let_go(
    make_door: MakeDoor, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await calling(turns, user_id, ("tea", "{}"))
    for event in (called(new_id()), called(turn_id, round=5)):
        await make_door(Watched("tea")).on_tools_called(event)
    assert await events(bus, subjects.TURN_PREPARED, TurnPrepared) == []


async def test_one_call_s_hiccup_does_not_break_off_the_others(
    make_door: MakeDoor, turns: Turns, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, pay = Watched("slow", idempotent=False), Watched("pay")
    turn_id = await calling(turns, user_id, ("slow", '{"do": "wait"}'), ("pay", "{}"))
    door = make_door(slow, pay)
    start = door.turns.start_call

    async def lost(claimed: ToolsClaimed, id: str) -> CallStart | None:
        if id.endswith("02"):
            await slow.started.wait()
            raise psycopg.OperationalError
        return await start(claimed, id)

    monkeypatch.setattr(door.turns, "start_call", lost)
    work = asyncio.create_task(door.on_tools_called(called(turn_id)))
    await slow.started.wait()
    slow.go_on.set()
    with pytest.raises(ExceptionGroup) as raised:
        await work
    assert is_away(raised.value)
    assert await column(turns.database, "SELECT status AS value FROM tool_calls ORDER BY position") == ["done", "asked"]


async def test_a_stop_ends_the_round_with_all_that_its_tools_did(
    make_door: MakeDoor, turns: Turns, user_id: str, bus: Bus
) -> None:
    slow, quick = Watched("slow"), Watched("quick")
    turn_id = await calling(turns, user_id, ("slow", '{"do": "wait"}'), ("quick", '{"say": "2"}'))
    door = make_door(slow, quick)
    await door.stage.stops.open()
    work = asyncio.create_task(door.on_tools_called(called(turn_id)))
    await asyncio.gather(slow.started.wait(), quick.started.wait())
    await Stopping(turns, door.stage.endings, bus).stop(turn_id, user_id)
    async with asyncio.timeout(1):
        await work
    assert await column(turns.database, RESULTS) == [BROKEN_OFF, "2"]
    held = await turns.claim(turn_id, 1, OTHER)
    assert held is not None
    assert held.stopped


async def test_a_stop_before_the_claim_starts_nothing(make_door: MakeDoor, turns: Turns, user_id: str) -> None:
    tea = Watched("tea")
    turn_id = await calling(turns, user_id, ("tea", "{}"), ("tea", "{}"))
    await turns.stop(user_id, [turn_id])
    await make_door(tea).on_tools_called(called(turn_id))
    assert tea.effects == []
    assert await column(turns.database, RESULTS) == [STOPPED_BEFORE] * 2


async def test_a_bus_that_is_away_costs_no_call(make_door: MakeDoor, turns: Turns, user_id: str, nats_url: str) -> None:
    tea, elsewhere = Watched("tea"), await Bus.connect(nats_url, "cut-off")
    door = make_door(tea)
    door.bus = elsewhere
    await elsewhere.close()
    turn_id = await calling(turns, user_id, ("tea", '{"say": "hot"}'))
    with pytest.raises(BusUnavailable):  # the next round cannot be told; this one is committed
        await door.on_tools_called(called(turn_id))
    assert await column(turns.database, RESULTS) == ["hot"]


async def test_a_database_that_goes_away_during_the_calls_is_no_fault_of_the_turn(
    make_door: MakeDoor, turns: Turns, user_id: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insisting, "AT_MOST", 0.0)
    own = await Database.open(database_url, size=2, name="cut-off")
    slow = Watched("slow")
    turn_id = await calling(turns, user_id, ("slow", '{"do": "wait"}'))
    work = asyncio.create_task(make_door(slow, database=own).on_tools_called(called(turn_id)))
    await slow.started.wait()
    await own.close()
    slow.go_on.set()
    with pytest.raises(ExceptionGroup) as raised:
        await work
    assert is_away(raised.value)
    assert raised.group_contains(psycopg.OperationalError)


async def test_a_claim_whose_answer_was_lost_is_made_again(
    make_door: MakeDoor, turns: Turns, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner lives: nobody else could take the turn, and the owner would not know that it has it."""
    turn_id, door = await calling(turns, user_id, ("tea", '{"say": "hot"}')), make_door(Watched("tea"))
    await alive(turns, door.stage.worker_id)
    claim, answers = door.turns.claim_tools, list[ToolsClaimed | None]()

    async def lost(turn_id: str, round: int, owner: str) -> ToolsClaimed | None:
        answers.append(await claim(turn_id, round, owner))
        if len(answers) == 1:
            raise psycopg.OperationalError
        return answers[-1]

    monkeypatch.setattr(door.turns, "claim_tools", lost)
    await door.on_tools_called(called(turn_id))
    assert None not in answers
    assert await column(turns.database, RESULTS) == ["hot"]
