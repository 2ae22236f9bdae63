"""What a model says, heard: words at once, tool calls when they are whole, the rest at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.openai import FunctionCall, ToolCall, Usage
from tests.workers.generation.rounds_made import call_chunk, chunk, counted
from workers.engines.ai.chunks import Chunk
from workers.generation.listening import Listening

TURN = "0190163d-8694-739b-aea5-966c26f8ad91"


def heard(*chunks: Chunk) -> Listening:
    listening = Listening()
    listening.hear(chunks)
    return listening


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=3)), max_size=4), max_size=5))
def test_every_word_is_shown_to_its_choice_in_order(batches: list[list[tuple[int, str]]]) -> None:
    listening = Listening()
    shown = dict.fromkeys(range(3), "")
    for batch in batches:
        for piece in listening.hear([chunk(text, choice) for choice, text in batch]):
            shown[piece.choice] += piece.text
    said = [each for batch in batches for each in batch]
    for choice in shown:
        assert shown[choice] == "".join(text for to, text in said if to == choice).replace("\0", "")


def test_thoughts_refusals_and_log_probabilities_come_along() -> None:
    (piece,) = Listening().hear([chunk("a", reasoning_content="hm", refusal="no", logprobs={"content": []})])
    assert (piece.text, piece.reasoning, piece.refusal, piece.logprobs) == ("a", "hm", "no", {"content": []})


def test_a_thought_under_its_other_name_is_heard() -> None:
    (piece,) = Listening().hear([chunk(reasoning="hm")])
    assert piece.reasoning == "hm"


def test_what_holds_no_words_shows_nothing() -> None:
    assert Listening().hear([chunk(""), chunk(None), chunk("\0"), chunk(finish="stop"), counted(1, 2), Chunk()]) == []


def test_tool_calls_are_held_back_and_joined() -> None:
    listening = Listening()
    parts = [
        call_chunk(0, "c1", "look", ""),
        call_chunk(0, arguments='{"at":'),
        call_chunk(1, "c2", "think", "{}"),
        call_chunk(0, arguments='"x"}'),
    ]
    assert listening.hear(parts) == []
    assert listening.calls(TURN, 0) == [
        ToolCall(id="c1", function=FunctionCall("look", '{"at":"x"}')),
        ToolCall(id="c2", function=FunctionCall("think", "{}")),
    ]


def test_calls_that_a_server_gives_one_index_are_told_apart_by_their_ids() -> None:
    listening = heard(call_chunk(0, "c1", "look", "{}"), call_chunk(0, "c2", "look", "[]"))
    assert [(call.id, call.function.arguments) for call in listening.calls(TURN, 0)] == [("c1", "{}"), ("c2", "[]")]


def test_calls_of_another_choice_are_its_own() -> None:
    listening = heard(call_chunk(0, "c1", "look"), call_chunk(0, "c2", "think", choice=1))
    assert [call.id for call in listening.calls(TURN, 0, 0)] == ["c1"]
    assert [call.id for call in listening.calls(TURN, 0, 1)] == ["c2"]
    assert listening.calls(TURN, 0, 2) == []


def test_a_call_without_an_id_gets_one_that_is_always_the_same() -> None:
    listening = heard(call_chunk(0, None, "look"), call_chunk(1, "", "look"))
    ids = [call.id for call in listening.calls(TURN, 0)]
    assert ids == [call.id for call in listening.calls(TURN, 0)]
    assert len({*ids, *(call.id for call in listening.calls(TURN, 1))}) == 4


def test_what_cannot_be_stored_is_not_in_a_call() -> None:
    (call,) = heard(call_chunk(0, "c1", "lo\0ok", '{"a":"\0"}')).calls(TURN, 0)
    assert call.function == FunctionCall("look", '{"a":""}')


@pytest.mark.parametrize(
    ("said", "calls", "told"),
    [
        ("stop", False, "stop"),
        ("length", False, "length"),
        ("content_filter", False, "content_filter"),
        ("tool_calls", False, "stop"),
        ("tool_calls", True, "tool_calls"),
        ("stop", True, "tool_calls"),
        ("eos_token", False, "stop"),
        (None, False, "stop"),
    ],
)
def test_an_end_is_told_in_openai_s_words(said: str | None, calls: bool, told: str) -> None:
    whole = [ToolCall(id="c", function=FunctionCall("f"))] if calls else []
    assert heard(chunk("x", finish=said)).finish_reason(0, whole) == told


def test_what_the_server_counted_counts() -> None:
    assert heard(chunk("a"), counted(7, 9)).usage_or_estimate(1000) == Usage(
        prompt_tokens=7, completion_tokens=9, total_tokens=16
    )


def test_where_the_server_counted_nothing_it_is_estimated() -> None:
    usage = heard(chunk("a"), chunk("b"), chunk("")).usage_or_estimate(40)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (11, 2, 13)
