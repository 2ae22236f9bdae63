"""A prepared turn is claimed, answered and committed; then its reader is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas import subjects
from schemas.faults import EngineFailed, EngineRefused
from schemas.ids import new_id
from schemas.openai import FunctionSpec, SystemMessage, Tool, UserMessage
from schemas.replies import Delta, Failed, Fence, Finished, Start
from schemas.turns import TurnCompleted, TurnPrepared, TurnReleased, TurnRequested, TurnState, TurnToolsCalled
from tests.workers.asked import (
    BUNDLE,
    OTHER,
    alive,
    answer,
    asked,
    calls_of,
    chat,
    claimed,
    column,
    in_session,
    new_turn,
    reply,
)
from tests.workers.generation.acting import Line, Script, pool_of, resuming
from tests.workers.generation.rounds_made import Read, call_chunk, chunk, counted, held, read_out
from tests.workers.sent import events, frames
from tests.workers.storage.rows import add_session
from workers.delivery import Fenced, Later
from workers.generation.handlers import Generation
from workers.generation.pace import Pace
from workers.generation.partials import PartialKeeper
from workers.stage import Stage
from workers.storage.turns import Turns

CLOCK, LOOK = (Tool(function=FunctionSpec(name=name)) for name in ("clock", "look"))


@pytest.fixture
async def script() -> Script:
    return Script()


MakeDoor = Callable[..., Generation]


@pytest.fixture
def make_door(config: Config, bus: Bus, turns: Turns, script: Script) -> MakeDoor:
    """Generation processes, each its own worker."""

    def made(resume: str = "prefill") -> Generation:
        own = resuming(config, resume)
        stage = Stage("generation", own, bus, turns.database)
        return Generation(stage, pool_of(own, script), PartialKeeper(stage.turns), Pace(0))

    return made


@pytest.fixture
def door(make_door: MakeDoor) -> Generation:
    return make_door()


Asks = Callable[..., Any]


@pytest.fixture
def asks(turns: Turns, user_id: str) -> Asks:
    """Accept a turn, and give its arrival."""

    async def accept(**changes: Any) -> TurnRequested:
        bundle = msgspec.structs.replace(BUNDLE, incoming=(UserMessage(content="Hi"),), **changes.pop("bundle", {}))
        arrival = asked(user_id, chat(**changes))
        assert await turns.open(new_turn(arrival, bundle=bundle)) is not None
        return arrival

    return accept


def event_of(arrival: TurnRequested, round: int = 0) -> TurnPrepared:
    return TurnPrepared(turn_id=arrival.turn_id, round=round)


async def state_of(turns: Turns, arrival: TurnRequested) -> str:
    stand = await turns.stand(arrival.turn_id)
    assert stand
    return stand.state


async def reply_of(bus: Bus, arrival: TurnRequested) -> Read:
    return await read_out(bus, held(turn_id=arrival.turn_id))


REPLIES = "SELECT content AS value FROM messages WHERE role = 'assistant' ORDER BY ord"


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
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    script.says([chunk("Once")], EngineFailed())
    await door.on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert (read.words, read.fold.end) == ("Once", Failed(1, 1, EngineFailed().record))
    assert await column(turns.database, REPLIES) == ["Once"]
    state = "SELECT metadata -> 'state' AS value FROM messages WHERE role = 'assistant'"
    assert await column(turns.database, state) == ["failed"]


async def test_an_owner_that_was_followed_meanwhile_commits_and_tells_nothing(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival, go_on = await asks(), asyncio.Event()
    script.says([chunk("Once")], go_on, [chunk(" more")])
    work = asyncio.create_task(door.on_turn_prepared(event_of(arrival)))
    await script.silent.wait()
    await claimed(turns, arrival.turn_id, owner=OTHER)
    go_on.set()
    with pytest.raises(Fenced):
        await work
    assert await state_of(turns, arrival) == TurnState.GENERATING
    assert await column(turns.database, REPLIES) == []
    assert not any(isinstance(frame, Finished) for frame in await frames(bus, arrival.turn_id))


async def cut(door: Generation, script: Script, arrival: TurnRequested, *lines: Line) -> None:
    """Let the model say these lines, and its worker die."""
    script.silent.clear()
    script.says(*lines, asyncio.Event())
    work = asyncio.create_task(door.on_turn_prepared(event_of(arrival)))
    await script.silent.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_worker_that_is_stopped_leaves_the_turn_as_it_is(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await cut(door, script, arrival, [chunk("Once")])
    assert await state_of(turns, arrival) == TurnState.GENERATING
    assert await frames(bus, arrival.turn_id) == [Delta(1, 1, "Once", begins=True)]


async def test_a_reply_whose_worker_died_goes_on_from_its_last_word(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await cut(make_door(), script, arrival, [chunk("Once ")], [chunk("upon")])
    script.says([chunk(" a time.")], [counted(20, 3)])
    await make_door().on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert (read.words, read.gaps) == ("Once upon a time.", 0)
    assert isinstance(read.fold.end, Finished)
    assert script.calls[1].prefix == "Once upon"
    assert await column(turns.database, REPLIES) == ["Once upon a time."]
    assert [type(frame) for frame in await frames(bus, arrival.turn_id)] == [
        Delta,
        Delta,
        Fence,
        Start,
        Delta,
        Finished,
    ]


async def test_a_reply_whose_model_cannot_go_on_ends_honestly(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await cut(make_door(), script, arrival, [chunk("Once")])
    await make_door("none").on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert read.words == "Once"
    assert isinstance(read.fold.end, Failed)
    assert (read.fold.end.state, read.fold.end.fault.code) == ("interrupted", "ENGINE_FAILED")
    assert len(script.calls) == 1
    assert await state_of(turns, arrival) == TurnState.INTERRUPTED
    assert await column(turns.database, REPLIES) == ["Once"]


async def test_a_reply_that_had_not_begun_begins_anew_with_any_model(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival = await asks()
    await cut(make_door(), script, arrival)
    script.says([chunk("Hello.")])
    await make_door("none").on_turn_prepared(event_of(arrival))
    assert (await reply_of(bus, arrival)).words == "Hello."


async def test_a_turn_whose_owner_lives_is_left_for_later(
    door: Generation, asks: Asks, turns: Turns, config: Config
) -> None:
    arrival = await asks()
    await alive(turns, OTHER)
    await claimed(turns, arrival.turn_id, owner=OTHER)
    with pytest.raises(Later) as later:
        await door.on_turn_prepared(event_of(arrival))
    assert later.value.delay == config.storage.lease / 2


async def test_an_end_that_was_committed_and_not_told_is_told(
    door: Generation, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    owned, said = await claimed(turns, arrival.turn_id), reply("Hello.")
    await turns.finish(owned, TurnState.COMPLETED, said, [answer(arrival.turn_id, "Hello.")], finish_reasons=["length"])
    await door.on_turn_prepared(event_of(arrival))
    told = Finished(1, 1, ["length"], said.usage, said.shown_length, said.shown_digest)
    assert await frames(bus, arrival.turn_id) == [told]
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == [TurnCompleted(turn_id=arrival.turn_id)]


async def test_calls_that_were_committed_and_not_handed_on_are_handed_on(
    door: Generation, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks(bundle={"tools": (CLOCK,)})
    owned = await claimed(turns, arrival.turn_id)
    await turns.call_tools(owned, reply(), answer(arrival.turn_id, ""), calls_of(arrival.turn_id, "clock"))
    await door.on_turn_prepared(event_of(arrival))
    called = await events(bus, subjects.TURN_TOOLS_CALLED, TurnToolsCalled)
    assert called == [TurnToolsCalled(turn_id=arrival.turn_id, round=0)]


async def test_a_turn_nobody_knows_is_let_go(door: Generation, bus: Bus) -> None:
    await door.on_turn_prepared(TurnPrepared(turn_id=new_id()))
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == []


async def test_an_old_round_s_event_is_let_go(door: Generation, asks: Asks, turns: Turns, bus: Bus) -> None:
    arrival = await asks()
    await door.on_turn_prepared(event_of(arrival, round=3))
    assert await state_of(turns, arrival) == TurnState.PREPARED
    assert await frames(bus, arrival.turn_id) == []


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
