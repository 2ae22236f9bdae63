"""The stored reply of a turn, as its readers fold it."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import codec
from schemas.replies import Delta, Failed, Finished, Frame, ReplyFold, Snapshot, Start, measure
from schemas.turns import ENDS, TurnState
from workers.records.stored_reply import PAGE_BYTES, stored_reply
from workers.storage.turn_rows import TurnEnd
from workers.storage.turns_read import RepliedTurn

SHOWN = [Delta(3, 1, "Hel"), Delta(3, 2, "lo "), Delta(5, 3, "you", choice=1), Delta(5, 4, reasoning="hm")]


def turn(state: TurnState = TurnState.COMPLETED, rounds: tuple[list[Delta], ...] = (SHOWN,), **end: Any) -> RepliedTurn:
    said = [delta for round in rounds for delta in round]
    length = digest = 0
    for delta in said:
        length, digest = measure(delta, length, digest)
    columns: dict[str, Any] = {
        "state": state.value,
        "epoch": 6,
        "shard": 0,
        "session_id": "s",
        "shown_index": len(said),
        "shown_length": length,
        "shown_digest": digest,
        "finish_reasons": ["stop"],
        "usage": {"completion_tokens": 3},
        "fault": None,
    }
    return RepliedTurn(
        turn_id="t",
        personality_id=None,
        model="m",
        created=1,
        ignored_messages=0,
        reply=[codec.encode(round) for round in rounds],
        end=TurnEnd(**(columns | end)),
    )


def frames_of(turn: RepliedTurn) -> list[Frame]:
    return [codec.decoder(Frame).decode(frame) for frame in stored_reply(turn).frames]


def fed(fold: ReplyFold, frames: list[Frame]) -> list[Delta]:
    return [event for frame in frames for event in fold.feed(frame) if isinstance(event, Delta)]


def test_a_reader_that_folds_it_sees_every_event_and_the_end() -> None:
    fold = ReplyFold()
    assert fed(fold, frames_of(turn())) == SHOWN
    assert isinstance(fold.end, Finished)
    assert fold.end.usage.completion_tokens == 3


def test_events_of_several_rounds_follow_each_other() -> None:
    assert fed(ReplyFold(), frames_of(turn(rounds=(SHOWN[:1], SHOWN[1:])))) == SHOWN


@pytest.mark.parametrize("seen", range(len(SHOWN) + 1))
def test_a_reader_that_has_seen_a_part_gets_exactly_the_rest(seen: int) -> None:
    fold = ReplyFold()
    live: list[Frame] = [Start(3, 0), *SHOWN[:2], Start(5, 2, 2), *SHOWN[2:]]
    for frame in live:
        if fold.index < seen:
            fold.feed(frame)
    assert fold.index == seen
    assert fed(fold, frames_of(turn())) == SHOWN[seen:]


@pytest.mark.parametrize("state", [TurnState.FAILED, TurnState.INTERRUPTED])
def test_a_turn_that_broke_off_ends_with_its_fault_after_what_was_said(state: TurnState) -> None:
    fold = ReplyFold()
    fault = {"code": "ENGINE_TIMEOUT", "message": "m"}
    assert fed(fold, frames_of(turn(state, fault=fault))) == SHOWN
    assert isinstance(fold.end, Failed)
    assert (fold.end.fault.code, fold.end.state) == ("ENGINE_TIMEOUT", state.value)


def test_a_cancelled_turn_ends_in_good_order_and_marked_as_stopped() -> None:
    end = frames_of(turn(TurnState.CANCELLED, finish_reasons=None))[-1]
    assert isinstance(end, Finished)
    assert (end.stopped, end.finish_reasons, end.state) == (True, ["stop"], "cancelled")


@pytest.mark.parametrize("state", sorted(set(TurnState) - ENDS))
def test_a_turn_that_goes_on_has_its_committed_rounds_and_no_end(state: TurnState) -> None:
    fold = ReplyFold()
    assert fed(fold, frames_of(turn(state))) == SHOWN
    assert fold.end is None
    assert frames_of(turn(state, rounds=())) == []


def test_committed_rounds_do_not_void_what_their_last_owner_may_still_have_said() -> None:
    fold = ReplyFold()
    fed(fold, frames_of(turn(TurnState.GENERATING)))
    assert fed(fold, [Delta(5, 5, "more")]) == [Delta(5, 5, "more")]


def test_a_long_reply_is_read_page_by_page_and_ends_with_the_last() -> None:
    long = turn(rounds=([Delta(1, index, "x" * 100_000) for index in range(1, 8)],))
    fold, pages, more = ReplyFold(), 0, True
    while more:
        page = stored_reply(long, fold.index)
        assert sum(map(len, page.frames)) < 2 * PAGE_BYTES
        fed(fold, [codec.decoder(Frame).decode(frame) for frame in page.frames])
        more, pages = page.more, pages + 1
    assert (pages, fold.index) == (4, 7)
    assert isinstance(fold.end, Finished)


def test_an_event_larger_than_a_page_is_a_page() -> None:
    long = turn(rounds=([Delta(1, 1, "x" * (PAGE_BYTES + 1)), Delta(1, 2, "y")],))
    assert stored_reply(long).more
    assert not stored_reply(long, 1).more


def test_behind_the_last_event_comes_only_the_end() -> None:
    frames = [codec.decoder(Frame).decode(frame) for frame in stored_reply(turn(), len(SHOWN)).frames]
    assert [type(frame) for frame in frames] == [Finished]


@pytest.mark.parametrize("state", sorted(ENDS))
def test_a_reader_of_an_ended_turn_always_comes_to_an_end(state: TurnState) -> None:
    fold = ReplyFold()
    fed(fold, frames_of(turn(state, rounds=(), finish_reasons=None, usage=None)))
    assert fold.end is not None


def test_the_words_travel_as_one_snapshot() -> None:
    assert isinstance(frames_of(turn())[0], Snapshot)
