"""The stored reply of a turn, as its readers fold it."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import codec
from schemas.faults import FaultRecord
from schemas.openai import FunctionCall, ToolCall, Usage
from schemas.replies import Delta, Failed, Finished, Frame, ReplyFold, Start
from schemas.turns import ENDS, TurnState
from workers.records.stored_reply import stored_reply
from workers.storage.turns_read import RepliedTurn, Said

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def turn(state: TurnState = TurnState.COMPLETED, **changes: Any) -> RepliedTurn:
    columns: dict[str, Any] = {
        "turn_id": "t",
        "session_id": "s",
        "personality_id": None,
        "model": "m",
        "shard": 0,
        "state": state.value,
        "created": 1,
        "finish_reasons": ["stop"],
        "usage": None,
        "fault": None,
    }
    return RepliedTurn(**(columns | changes))


def said(content: Any, **metadata: Any) -> Said:
    return Said(content=content, metadata=metadata)


def frames_of(turn: RepliedTurn, *messages: Said) -> list[Frame]:
    return [codec.decoder(Frame).decode(frame) for frame in stored_reply(turn, messages).frames]


def deltas_of(turn: RepliedTurn, *messages: Said) -> list[Delta]:
    return [frame for frame in frames_of(turn, *messages) if isinstance(frame, Delta)]


def test_a_reader_that_folds_it_sees_all_of_it_and_its_end() -> None:
    fold = ReplyFold()
    usage = Usage(completion_tokens=3)
    messages = (said("Hel", reasoning="hm"), said("lo 🙂"))
    seen = [event for frame in frames_of(turn(usage=usage), *messages) for event in fold.feed(frame)]
    assert "".join(event.text for event in seen if isinstance(event, Delta)) == "Hello 🙂"
    assert isinstance(fold.end, Finished)
    assert fold.end.usage == usage


def test_it_begins_with_a_start_and_its_indexes_are_dense_from_one() -> None:
    frames = frames_of(turn(), said("a"), said(None), said("b"))
    assert isinstance(frames[0], Start)
    assert [frame.index for frame in frames if isinstance(frame, Delta)] == [1, 2]


def test_each_choice_keeps_its_number() -> None:
    deltas = deltas_of(turn(finish_reasons=["stop", "stop"]), said("a"), said("b", choice=1))
    assert [(delta.choice, delta.text) for delta in deltas] == [(0, "a"), (1, "b")]


def test_content_parts_are_read_as_their_text() -> None:
    assert deltas_of(turn(), said([{"type": "text", "text": "a"}]))[0].text == "a"


def test_calls_for_the_client_are_shown() -> None:
    deltas = deltas_of(turn(finish_reasons=["tool_calls"]), said(None, tool_calls=[CALL]))
    assert deltas[0].tool_calls == [ToolCall(id="call_1", function=FunctionCall("look", "{}"))]


def test_calls_of_our_own_tools_are_not_shown() -> None:
    deltas = deltas_of(turn(finish_reasons=["tool_calls"]), said("x", tool_calls=[CALL]), said("y"))
    assert [delta.tool_calls for delta in deltas] == [None, None]


def test_calls_of_a_turn_that_did_not_end_with_them_are_not_shown() -> None:
    assert deltas_of(turn(TurnState.FAILED, finish_reasons=None), said(None, tool_calls=[CALL])) == []


def test_a_failed_turn_ends_with_its_fault_after_what_was_said() -> None:
    fault = FaultRecord(code="ENGINE_TIMEOUT", message="m")
    assert frames_of(turn(TurnState.FAILED, fault=fault), said("a"))[-1] == Failed(1, 1, fault, "failed")


def test_an_interrupted_turn_says_so() -> None:
    end = frames_of(turn(TurnState.INTERRUPTED), said("a"))[-1]
    assert isinstance(end, Failed)
    assert end.state == "interrupted"


def test_a_cancelled_turn_ends_in_good_order_and_marked_as_stopped() -> None:
    end = frames_of(turn(TurnState.CANCELLED, finish_reasons=None), said("a"))[-1]
    assert isinstance(end, Finished)
    assert (end.stopped, end.finish_reasons, end.state) == (True, ["stop"], "cancelled")


@pytest.mark.parametrize("state", sorted(set(TurnState) - ENDS))
def test_a_turn_that_has_not_ended_gets_its_start_alone(state: TurnState) -> None:
    assert frames_of(turn(state), said("a", partial=True)) == [Start(1, 0)]


@pytest.mark.parametrize("state", sorted(ENDS))
def test_a_reader_of_an_ended_turn_always_comes_to_an_end(state: TurnState) -> None:
    fold = ReplyFold()
    for frame in frames_of(turn(state, finish_reasons=None, usage=None, fault=None)):
        fold.feed(frame)
    assert fold.end is not None
