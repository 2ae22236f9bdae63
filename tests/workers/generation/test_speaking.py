"""A model server that breaks off in the middle: the same owner has it go on, and the reader notices a pause at most."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ops.runtime.bus import Bus
from schemas.faults import EngineFailed, EngineOverloaded, EngineRefused
from schemas.openai import FunctionSpec, Tool
from schemas.replies import Delta, Failed, Finished
from schemas.turns import TurnState
from tests.workers.asked import column
from tests.workers.generation.acting import Script
from tests.workers.generation.conftest import REPLIES, Asks, MakeDoor, event_of, reply_of, state_of
from tests.workers.generation.rounds_made import call_chunk, chunk, counted
from tests.workers.sent import frames
from workers.engines.ai.watchdog import TooLate
from workers.generation.handlers import Generation
from workers.storage.turns import Turns

CLOCK = Tool(function=FunctionSpec(name="clock"))
RETRIES = 3
THOUGHTS = "SELECT metadata -> 'reasoning' AS value FROM messages WHERE role = 'assistant'"


async def test_a_reply_goes_on_from_its_last_word_in_the_same_hands(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks(max_tokens=20)
    script.says([chunk("Once ")], [chunk("upon")], EngineFailed())
    script.says([chunk(" a time.", finish="stop")], [counted(12, 3)])
    await door.on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert (read.words, read.gaps) == ("Once upon a time.", 0)
    assert isinstance(read.fold.end, Finished)
    assert (read.fold.attempt, read.fold.epoch) == (1, 1)
    assert (script.calls[1].prefix, script.calls[1].max_output_tokens) == ("Once upon", 18)
    assert await column(turns.database, REPLIES) == ["Once upon a time."]
    usage = read.fold.end.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 5, 15)


async def test_words_that_wait_for_company_are_shown_before_the_model_is_asked_again(
    door: Generation, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival, door.pace.window = await asks(), 1000
    script.says([chunk("Once ")], [chunk("upon")], EngineFailed())
    script.says([chunk(" a time.", finish="stop")])
    await door.on_turn_prepared(event_of(arrival))
    assert script.calls[1].prefix == "Once upon"
    assert (await reply_of(bus, arrival)).words == "Once upon a time."


async def test_who_is_asked_in_words_to_go_on_says_nothing_twice(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    script.says([chunk("Once upon a time")], [chunk(" there lived a king")], EngineFailed())
    script.says(*([chunk(each)] for each in ("Sure, ", "continuing: ", "there lived", " a king", " and a")))
    script.answers[-1] += [[chunk(" queen.", finish="stop")], [counted(30, 6)]]
    await make_door("continue").on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert read.words == "Once upon a time there lived a king and a queen."
    assert await column(turns.database, REPLIES) == [read.words]
    assert [type(message).__name__ for message in script.calls[1].messages[-2:]] == ["AssistantMessage", "UserMessage"]
    assert isinstance(read.fold.end, Finished)
    assert read.fold.end.usage.completion_tokens == sum(delta.tokens for delta in read.deltas) == 4


async def test_a_short_answer_that_was_held_back_is_shown_at_its_end(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival = await asks()
    script.says([chunk("Once upon a")], EngineFailed())
    script.says([chunk("time.", finish="stop")])
    await make_door("continue").on_turn_prepared(event_of(arrival))
    assert (await reply_of(bus, arrival)).words == "Once upon a time."


async def test_a_server_that_keeps_breaking_off_is_asked_so_often_and_no_more(
    door: Generation, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival = await asks()
    for number in range(RETRIES + 1):
        script.says([chunk(f"{number}")], EngineFailed())
    await door.on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert (read.words, read.fold.end) == ("0123", Failed(1, 4, EngineFailed().record))
    assert len(script.calls) == RETRIES + 1


async def test_a_server_that_fell_silent_is_asked_once_more(
    door: Generation, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival = await asks()
    script.says([chunk("a")], TooLate())
    script.says([chunk("b")], TooLate())
    await door.on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert read.words == "ab"
    assert isinstance(read.fold.end, Failed)
    assert read.fold.end.fault.code == TooLate.code


@pytest.mark.parametrize(
    ("resume", "fault", "request_changes"),
    [
        ("none", EngineFailed(), {}),
        ("prefill", EngineFailed(), {"logprobs": True}),
        ("prefill", EngineRefused(), {}),
        ("prefill", EngineOverloaded(retry_after=1000), {}),
    ],
)
async def test_what_cannot_go_on_ends_as_it_broke(
    make_door: MakeDoor,
    script: Script,
    asks: Asks,
    bus: Bus,
    turns: Turns,
    resume: str,
    fault: Any,
    request_changes: dict[str, Any],
) -> None:
    arrival = await asks(**request_changes)
    script.says([chunk("Once")], fault)
    await make_door(resume).on_turn_prepared(event_of(arrival))
    assert (await reply_of(bus, arrival)).fold.end == Failed(1, 1, fault.record)
    assert await state_of(turns, arrival) == TurnState.FAILED


async def test_a_server_that_fails_at_once_was_tried_by_the_guard_and_is_not_asked_again(
    door: Generation, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival = await asks()
    script.says(EngineFailed())
    await door.on_turn_prepared(event_of(arrival))
    assert isinstance((await reply_of(bus, arrival)).fold.end, Failed)


async def test_half_a_call_that_nobody_saw_is_asked_for_again(
    make_door: MakeDoor, script: Script, asks: Asks, turns: Turns
) -> None:
    arrival = await asks(bundle={"tools": (CLOCK,)})
    script.says([call_chunk(0, "c1", "clock", '{"ti')], EngineFailed())
    script.says([call_chunk(0, "c1", "clock", "{}")])
    await make_door("none").on_turn_prepared(event_of(arrival))
    assert await column(turns.database, "SELECT arguments AS value FROM tool_calls") == ["{}"]


async def test_half_a_call_behind_words_ends_the_reply(door: Generation, script: Script, asks: Asks, bus: Bus) -> None:
    arrival = await asks(bundle={"tools": (CLOCK,)})
    script.says([chunk("Wait.")], [call_chunk(0, "c1", "clock", '{"ti')], EngineFailed())
    await door.on_turn_prepared(event_of(arrival))
    assert isinstance((await reply_of(bus, arrival)).fold.end, Failed)


async def test_a_model_that_broke_off_thinking_thinks_anew_in_silence(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    script.says([chunk(reasoning_content="Hm, ki")], EngineFailed())
    script.says([chunk(reasoning_content="Hm, kings.")], [chunk("Once", finish="stop")])
    await make_door("none").on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert [(delta.reasoning, delta.text) for delta in read.deltas] == [("Hm, ki", ""), ("", "Once")]
    assert await column(turns.database, THOUGHTS) == ["Hm, ki"]


async def test_a_reply_that_has_used_up_its_tokens_is_finished_for_its_length(
    door: Generation, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival = await asks(max_tokens=2)
    script.says([chunk("Once")], [chunk(" upon")], EngineFailed())
    await door.on_turn_prepared(event_of(arrival))
    end = (await reply_of(bus, arrival)).fold.end
    assert isinstance(end, Finished)
    assert (end.finish_reasons, end.usage.completion_tokens) == (["length"], 2)
    assert len(script.calls) == 1


async def test_words_that_were_shown_count_once_whoever_counts(
    door: Generation, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival = await asks()
    script.says([chunk("a")], [chunk("b"), counted(5, 2)], EngineFailed())
    script.says([chunk("c", finish="stop"), msgspec.structs.replace(counted(7, 1))])
    await door.on_turn_prepared(event_of(arrival))
    said = [frame for frame in await frames(bus, arrival.turn_id) if isinstance(frame, Delta)]
    end = (await reply_of(bus, arrival)).fold.end
    assert isinstance(end, Finished)
    assert [delta.text for delta in said] == ["a", "b", "c"]
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (5, 3)
