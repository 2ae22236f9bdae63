"""The audit finds each broken promise, and none where all was kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ops.drills.audit import (
    DIFFERS,
    DOUBLE_EFFECTS,
    DOUBLE_ROWS,
    LEFT,
    LOST,
    MISSING_EFFECTS,
    ORDER,
    UNSEEN,
    interrupted,
    unknown_outcomes,
)
from ops.drills.ledger import KEYED, ONCE
from tests.ops.drills.worlds import MESSAGES, call, chat, effects, found, kinds, message, turn, world
from workers.storage.evidence import StoredSession


def test_where_all_went_well_nothing_is_found() -> None:
    assert found() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"turns": [turn(1)]},
        {"turns": [turn(1), turn(2, ended=False, state="generating")]},
        {"turns": [turn(1), turn(2, state="failed", fault="ENGINE_INTERNAL")]},
        {"chats": [chat(1), chat(2, state="", text="The second")]},
    ],
    ids=["a row that is gone", "a turn that never ended", "a turn that failed", "a client that was never told"],
)
def test_a_lost_reply_is_found(changes: dict[str, Any]) -> None:
    assert LOST in kinds(**changes)


@pytest.mark.parametrize("state", ["interrupted", "cancelled"])
def test_an_end_that_is_told_as_it_is_is_not_lost(state: str) -> None:
    assert kinds(turns=[turn(1), turn(2, state=state)], chats=[chat(1), chat(2, state=state)]) == []


def test_an_interrupted_turn_is_counted() -> None:
    assert len(interrupted(world(turns=[turn(1), turn(2, state="interrupted")]))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"turns": [turn(1), turn(2), turn(3)]},
        {"chats": [chat(1), chat(2), chat(2)]},
        {"messages": [*MESSAGES, message(8, "t2", "assistant")]},
        {"messages": [*MESSAGES, message(8, "t2", "user")]},
        {"messages": [*MESSAGES[:4], message(4, "t1", "tool", answers="call-1"), *MESSAGES[4:]]},
        {"sessions": [StoredSession(id="s1", counted=8)]},
    ],
    ids=["turn nobody asked for", "turn of two requests", "reply", "question", "answer of a tool", "count"],
)
def test_what_is_there_twice_is_found(changes: dict[str, Any]) -> None:
    assert DOUBLE_ROWS in kinds(**changes)


def test_a_second_choice_is_no_second_reply() -> None:
    two = [*MESSAGES, message(8, "t2", "assistant", "Another.", choice=1)]
    assert kinds(messages=two, sessions=[StoredSession(id="s1", counted=8)]) == []


def test_a_second_round_of_calls_is_no_second_reply() -> None:
    rounds = [*MESSAGES[:4], message(40, "t1", "assistant", calls=True), *MESSAGES[4:5]]
    rounds = [msgspec.structs.replace(said, ord=place) for place, said in enumerate([*rounds, *MESSAGES[5:]])]
    assert kinds(messages=rounds) == []


@pytest.mark.parametrize("kind", [KEYED, ONCE])
def test_an_effect_that_happened_twice_is_found(kind: str) -> None:
    entries = {KEYED: "a", ONCE: "b"}
    twice = [effects(each, entry, effects=1 + (each == kind)) for each, entry in entries.items()]
    assert kinds(effects=twice) == [DOUBLE_EFFECTS]


def test_an_effect_that_is_missing_is_found() -> None:
    assert kinds(effects=[effects(KEYED, "a")]) == [MISSING_EFFECTS]


@pytest.mark.parametrize("counted", [[], [effects(ONCE, "b")]])
def test_a_call_of_unknown_outcome_may_have_had_its_effect_or_not(counted: list[Any]) -> None:
    unknown = world(calls=[call("ledger_once", "b", "unknown")], effects=counted)
    assert unknown_outcomes(unknown) == 1
    assert found(calls=[call("ledger_once", "b", "unknown")], effects=counted) == []


@pytest.mark.parametrize("seen", ["The second", "The second reply. And more.", "The 2nd reply.", ""])
def test_a_client_that_saw_another_text_is_found(seen: str) -> None:
    assert kinds(chats=[chat(1), chat(2, text=seen)]) == [DIFFERS]


def test_a_client_that_was_not_told_the_end_may_have_seen_less() -> None:
    states = {"turns": [turn(1), turn(2, state="interrupted")]}
    assert kinds(chats=[chat(1), chat(2, state="interrupted", text="The sec")], **states) == []
    assert kinds(chats=[chat(1), chat(2, state="interrupted", text="The third")], **states) == [DIFFERS]


def test_what_a_text_says_is_not_repeated() -> None:
    [violation] = found(chats=[chat(1), chat(2, text="The secret")])
    assert "secret" not in violation.what
    assert violation.what.endswith("10 characters seen, 17 stored, alike up to 7")


def test_turns_whose_messages_are_mixed_are_found() -> None:
    mixed = [message(1, "t1", "user"), message(2, "t2", "user"), message(3, "t1", "assistant", "The first reply.")]
    assert ORDER in kinds(messages=[*mixed, message(4, "t2", "assistant", "The second reply.")])


def test_turns_answered_out_of_turn_are_found() -> None:
    swapped = [msgspec.structs.replace(said, ord=(said.ord + 4) % 7) for said in MESSAGES]
    assert ORDER in kinds(messages=[message(-2, "t2", "user"), message(-1, "t2", "assistant"), *swapped[:5]])


@pytest.mark.parametrize("says", ["Hello.", "Before this I saw 4 messages.", "Before this I saw 6 messages."])
def test_a_model_that_was_not_given_what_was_said_before_is_found(says: str) -> None:
    told = {"messages": [*MESSAGES[:-1], message(7, "t2", "assistant", says)]}
    assert kinds(chats=[chat(1), chat(2, tokens=0, text=says)], **told) == [UNSEEN]


def test_a_model_that_saw_all_of_it_is_believed() -> None:
    says = "Before this I saw 5 messages."
    told = {"messages": [*MESSAGES[:-1], message(7, "t2", "assistant", says)]}
    assert kinds(chats=[chat(1), chat(2, tokens=0, text=says)], **told) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"left": {"TURNS": 1}},
        {"messages": [*MESSAGES[:-1], message(7, "t2", "assistant", "The second reply.", partial=True)]},
        {"turns": [turn(1), turn(2, remembered=False)]},
        {"calls": [call("ledger_keyed", "a"), call("ledger_once", "b", "started")]},
    ],
    ids=["a message", "a part of a reply", "a turn memory missed", "an open call"],
)
def test_what_is_left_over_is_found(changes: dict[str, Any]) -> None:
    assert kinds(**changes) == [LEFT]


def test_a_chat_that_was_refused_broke_no_promise() -> None:
    assert kinds(chats=[chat(1), chat(2), chat(3, turn_id="", state="refused")]) == []
