"""What is committed of a round: whose calls they are, what was shown, what it cost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ops.runtime.bus import Bus
from schemas.ids import part_of
from schemas.openai import FunctionCall, FunctionSpec, Tool, ToolCall, Usage, UserMessage
from schemas.replies import Delta
from schemas.turns import TurnState
from tests.workers.asked import BUNDLE, chat
from tests.workers.generation.rounds_made import call_chunk, chunk, counted, held, round_of, writer_of
from workers.engines.ai.chunks import Chunk
from workers.generation.committing import (
    assistant_messages,
    client_calls,
    reply_so_far,
    round_ms,
    tool_calls_of,
    tools_message,
)
from workers.generation.listening import Listening
from workers.generation.rounds import Round
from workers.generation.takeover import Prefix

CLOCK, LOOK = (Tool(function=FunctionSpec(name=name)) for name in ("clock", "look"))
OURS = msgspec.structs.replace(BUNDLE, tools=(CLOCK,))
BOTH = [call_chunk(0, "c1", "clock"), call_chunk(1, "c2", "look"), call_chunk(2, "c3", "invented")]


def heard(*chunks: Chunk) -> Listening:
    listening = Listening()
    listening.hear(chunks)
    return listening


def declaring(*tools: Tool) -> Any:
    return chat(tools=[msgspec.to_builtins(tool) for tool in tools]) if tools else chat()


def names(calls: list[ToolCall]) -> list[str]:
    return [call.function.name for call in calls]


@pytest.mark.parametrize(
    ("declared", "ours", "theirs"),
    [
        ((), ["clock", "look", "invented"], []),
        ((LOOK,), ["clock"], ["look", "invented"]),
    ],
)
def test_calls_are_ours_or_the_client_s(declared: tuple[Tool, ...], ours: list[str], theirs: list[str]) -> None:
    round = round_of(request=declaring(*declared), bundle=OURS)
    assert names(tool_calls_of(round, heard(*BOTH))) == ours
    assert names(client_calls(round, heard(*BOTH))[0]) == theirs


def test_each_choice_has_its_own_calls_for_the_client() -> None:
    request = msgspec.structs.replace(declaring(LOOK), n=2)
    calls = client_calls(round_of(request=request), heard(call_chunk(0, "c1", "look", choice=1)))
    assert {choice: names(found) for choice, found in calls.items()} == {0: [], 1: ["look"]}


async def test_the_measure_of_a_reply_is_what_was_shown(bus: Bus) -> None:
    round = round_of()
    writer = writer_of(bus, round)
    await writer.say(Listening().hear([chunk("Hello"), chunk("🙂", choice=1)]))
    reply = reply_so_far(round, writer, heard())
    assert (reply.said, reply.shown_index, reply.shown_length) == (writer.said, 2, 6)
    assert reply.shown_digest == writer.digest


def usage_of(bus: Bus, round: Round, *chunks: Chunk) -> Usage:
    listening = Listening(round.prefix)
    listening.hear(chunks)
    return reply_so_far(round, writer_of(bus, round), listening).usage


def numbers(usage: Usage) -> tuple[int, int, int]:
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


async def test_rounds_add_up(bus: Bus) -> None:
    before = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert numbers(usage_of(bus, round_of(held(usage=before)), counted(20, 7))) == (30, 12, 42)


SAID = Prefix(index=2, length=2, digest=0, said=(Delta(1, 1, "a", tokens=3), Delta(1, 2, "b")))


async def test_what_a_dead_owner_said_counts_as_said_and_not_as_asked(bus: Bus) -> None:
    assert numbers(usage_of(bus, round_of(prefix=SAID), counted(20, 7))) == (16, 11, 27)


async def test_an_estimate_after_a_takeover_still_adds_up(bus: Bus) -> None:
    bundle = msgspec.structs.replace(BUNDLE, incoming=(UserMessage(content="x" * 40),))
    assert numbers(usage_of(bus, round_of(prefix=SAID, bundle=bundle), chunk("c"))) == (11, 5, 16)


async def test_the_first_word_is_timed_in_the_round_that_said_it(bus: Bus) -> None:
    for shown, timed in ((0, {"finished_ms", "first_token_ms"}), (3, {"finished_ms"})):
        round = round_of(held(shown_index=shown))
        writer = writer_of(bus, round)
        await writer.say(Listening().hear([chunk("a")]))
        assert reply_so_far(round, writer, heard()).timings.keys() == timed


@pytest.mark.parametrize(("said_after", "timed"), [(1.5, 1500.0), (None, None)])
async def test_a_first_word_that_a_dead_owner_showed_is_timed_by_the_stream_or_not_at_all(
    bus: Bus, said_after: float | None, timed: float | None
) -> None:
    round = round_of(prefix=SAID)
    if said_after is not None:
        first = round.arrival.asked_at + said_after
        round = msgspec.structs.replace(round, prefix=msgspec.structs.replace(SAID, first_said_at=first))
    writer = writer_of(bus, round)
    await writer.say(Listening(round.prefix).hear([chunk("c")]))
    assert reply_so_far(round, writer, heard()).timings.get("first_token_ms") == timed


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.01234, 12.3), (-0.5, 0.0), (2, 2000.0)])
def test_milliseconds_are_never_negative(seconds: float, milliseconds: float) -> None:
    assert round_ms(seconds) == milliseconds


async def test_a_message_a_choice_in_the_words_that_were_shown(bus: Bus) -> None:
    round = round_of(held(shown_index=4), request=chat(n=2))
    writer, listening = writer_of(bus, round), Listening()
    chunks = [
        chunk("He", reasoning_content="hm"),
        chunk("Ho", 1),
        chunk("llo", finish="length"),
        chunk(choice=1, refusal="no"),
    ]
    await writer.say(listening.hear(chunks))
    first, second = assistant_messages(round, writer, listening, {})
    assert (first.id, first.role, first.content) == (
        part_of(round.claimed.turn_id, "reply", 0, 0),
        "assistant",
        "Hello",
    )
    assert first.metadata == {"model": "scripted", "finish_reason": "length", "first_index": 5, "reasoning": "hm"}
    assert second.content == "Ho"
    assert second.metadata | {"choice": 1, "refusal": "no"} == second.metadata


async def test_words_that_still_wait_to_be_sent_are_committed(bus: Bus) -> None:
    round = round_of()
    writer = writer_of(bus, round)
    writer.add(Listening().hear([chunk("wait")]))
    assert assistant_messages(round, writer, heard(), {})[0].content == "wait"


async def test_a_message_with_calls_alone_has_no_content_and_an_empty_one_is_empty(bus: Bus) -> None:
    round = round_of()
    call = ToolCall(id="c1", function=FunctionCall("look", "{}"))
    (calling,) = assistant_messages(round, writer_of(bus, round), heard(), {0: [call]})
    assert (calling.content, calling.metadata["finish_reason"]) == (None, "tool_calls")
    assert calling.metadata["tool_calls"] == [msgspec.to_builtins(call)]
    (silent,) = assistant_messages(round, writer_of(bus, round), heard(), {})
    assert silent.content == ""


async def test_a_message_that_was_cut_off_says_so(bus: Bus) -> None:
    round = round_of()
    (message,) = assistant_messages(round, writer_of(bus, round), heard(), {}, state=TurnState.INTERRUPTED)
    assert message.metadata["state"] == "interrupted"


async def test_the_same_round_asks_for_its_tools_under_the_same_ids(bus: Bus) -> None:
    round = round_of(held(round=2))
    calls = [ToolCall(id=id, function=FunctionCall("clock", "{}")) for id in ("c1", "c2")]
    message, rows = tools_message(round, writer_of(bus, round), calls)
    assert (message, rows) == tools_message(round, writer_of(bus, round), calls)
    assert message.id == part_of(round.claimed.turn_id, "reply", 2, 0)
    assert message.metadata["tool_calls"] == msgspec.to_builtins(calls)
    assert [call for _, call in rows] == calls
    assert len({id for id, _ in rows}) == 2
