"""A prepared turn is claimed, answered and committed; then its reader is told."""

from __future__ import annotations

import msgspec
import psycopg
import pytest

from ops.runtime.bus import Bus
from schemas import subjects
from schemas.faults import EngineFailed, EngineRefused
from schemas.openai import FunctionSpec, SystemMessage, Tool, UserMessage
from schemas.replies import Delta, Failed, Finished
from schemas.turns import TurnCompleted, TurnPrepared, TurnReleased, TurnState, TurnToolsCalled
from tests.workers.asked import alive, column, in_session
from tests.workers.generation.acting import Script
from tests.workers.generation.conftest import REPLIES, Asks, MakeDoor, event_of, reply_of, state_of
from tests.workers.generation.rounds_made import call_chunk, chunk, counted
from tests.workers.sent import events, frames
from tests.workers.storage.rows import add_session
from workers.generation.handlers import Generation
from workers.storage.turn_rows import Claimed
from workers.storage.turns import Turns

CLOCK, LOOK = (Tool(function=FunctionSpec(name=name)) for name in ("clock", "look"))


async def test_what_the_model_says_is_shown_stored_and_told_to_be_whole(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    script.says([chunk("Hel")], [chunk("lo.", finish="length"), counted(3, 2)])
    await door.on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert (read.words, read.gaps) == ("Hello.", 0)
    assert isinstance(read.fold.end, Finished)
    assert (read.fold.end.finish_reasons, read.fold.end.usage.total_tokens) == (["length"], 5)
    assert await column(turns.database, REPLIES) == ["Hello."]
    assert await state_of(turns, arrival) == TurnState.COMPLETED
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == [TurnCompleted(turn_id=arrival.turn_id)]


async def test_the_model_is_asked_what_the_bundle_says(door: Generation, script: Script, asks: Asks) -> None:
    arrival = await asks(bundle={"system": ("Be kind.",)}, temperature=0.5)
    script.says([chunk("x")])
    await door.on_turn_prepared(event_of(arrival))
    (call,) = script.calls
    assert call.messages == (SystemMessage(content="Be kind."), UserMessage(content="Hi"))
    assert (call.model, call.temperature, call.prefix) == ("scripted", 0.5, None)


async def test_several_answers_are_kept_apart(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks(n=2)
    script.says([chunk("a"), chunk("b", 1)], [chunk("A", finish="stop"), chunk("B", 1, finish="length")])
    await door.on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert isinstance(read.fold.end, Finished)
    assert read.fold.end.finish_reasons == ["stop", "length"]
    assert await column(turns.database, REPLIES) == ["aA", "bB"]


async def test_a_call_of_a_tool_of_ours_is_stored_and_handed_on_and_not_shown(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks(bundle={"tools": (CLOCK,)})
    script.says([chunk("Let me see.")], [call_chunk(0, "c1", "clock", "{}")], [chunk(finish="tool_calls")])
    await door.on_turn_prepared(event_of(arrival))
    assert await state_of(turns, arrival) == TurnState.CALLING_TOOLS
    assert [call.call_id for call in await turns.asked_calls(arrival.turn_id, 0)] == ["c1"]
    called = await events(bus, subjects.TURN_TOOLS_CALLED, TurnToolsCalled)
    assert called == [TurnToolsCalled(turn_id=arrival.turn_id, round=0)]
    assert await frames(bus, arrival.turn_id) == [Delta(1, 1, "Let me see.", begins=True)]


async def test_a_call_of_the_client_s_tool_goes_back_whole_and_ends_the_turn(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks(tools=[msgspec.to_builtins(LOOK)])
    script.says([call_chunk(0, "c1", "look", '{"a"')], [call_chunk(0, arguments=":1}")], [chunk(finish="tool_calls")])
    await door.on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    (delta,) = read.deltas
    assert delta.tool_calls is not None
    assert delta.tool_calls[0].function.arguments == '{"a":1}'
    assert isinstance(read.fold.end, Finished)
    assert read.fold.end.finish_reasons == ["tool_calls"]
    assert await state_of(turns, arrival) == TurnState.COMPLETED


async def test_a_model_that_refuses_ends_the_turn_with_its_fault(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    script.says(EngineRefused("No."))
    await door.on_turn_prepared(event_of(arrival))
    assert await frames(bus, arrival.turn_id) == [Failed(1, 0, EngineRefused("No.").record)]
    assert await state_of(turns, arrival) == TurnState.FAILED
    assert await column(turns.database, REPLIES) == []


async def test_what_was_said_before_a_model_broke_off_is_kept(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival, door = await asks(), make_door("none")
    script.says([chunk("Once")], EngineFailed())
    await door.on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert (read.words, read.fold.end) == ("Once", Failed(1, 1, EngineFailed().record))
    assert await column(turns.database, REPLIES) == ["Once"]
    state = "SELECT metadata -> 'state' AS value FROM messages WHERE role = 'assistant'"
    assert await column(turns.database, state) == ["failed"]


async def test_the_end_of_a_turn_lets_the_session_s_next_one_run(
    door: Generation, script: Script, bus: Bus, turns: Turns, user_id: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    first = await in_session(turns, user_id, session_id)
    waiting = await in_session(turns, user_id, session_id, state=TurnState.QUEUED, bundle=None)
    script.says([chunk("Hello.")])
    await door.on_turn_prepared(TurnPrepared(turn_id=first))
    released = await events(bus, subjects.TURN_REQUESTED, TurnReleased)
    assert released == [TurnReleased(turn_id=waiting)]


async def test_a_turn_that_failed_lets_the_session_s_next_one_run(
    door: Generation, script: Script, bus: Bus, turns: Turns, user_id: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    first = await in_session(turns, user_id, session_id)
    waiting = await in_session(turns, user_id, session_id, state=TurnState.QUEUED, bundle=None)
    script.says(EngineRefused())
    await door.on_turn_prepared(TurnPrepared(turn_id=first))
    released = await events(bus, subjects.TURN_REQUESTED, TurnReleased)
    assert released == [TurnReleased(turn_id=waiting)]


async def test_a_claim_whose_answer_was_lost_is_made_again(
    door: Generation, script: Script, asks: Asks, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner lives: nobody else could take the turn, and the owner would not know that it has it."""
    arrival, claim, answers = await asks(), door.turns.claim, list[Claimed | None]()
    await alive(turns, door.stage.worker_id)

    async def lost(turn_id: str, round: int, owner: str) -> Claimed | None:
        answers.append(await claim(turn_id, round, owner))
        if len(answers) == 1:
            raise psycopg.OperationalError
        return answers[-1]

    monkeypatch.setattr(door.turns, "claim", lost)
    script.says([chunk("Hello.")])
    await door.on_turn_prepared(event_of(arrival))
    assert None not in answers
    assert await column(turns.database, REPLIES) == ["Hello."]
