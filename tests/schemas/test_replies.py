"""The fold: what a reader is shown of a reply is always the beginning of what it says in the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.faults import EngineTimeout
from schemas.openai import FunctionCall, ToolCall, Usage
from schemas.replies import (
    Checkpoint,
    Delta,
    Failed,
    Fence,
    Finished,
    Frame,
    Gap,
    Progress,
    ReplyFold,
    Snapshot,
    Start,
    measure,
)
from tests.schemas.stories import Story, stories

LATE = EngineTimeout().record


class Reader:
    """Feeds frames as they come and keeps what it is shown. A gap is noted and the frame let go."""

    def __init__(self) -> None:
        self.fold = ReplyFold()
        self.events: list[Any] = []
        self.gaps = 0

    def read(self, frames: Iterable[Frame]) -> Reader:
        for frame in frames:
            before = place_of(self.fold)
            try:
                self.events += self.fold.feed(frame)
            except Gap:
                self.gaps += 1
                assert place_of(self.fold) == before
        return self

    @property
    def shown(self) -> list[Delta]:
        return [event for event in self.events if isinstance(event, Delta)]

    @property
    def words(self) -> str:
        return "".join(delta.text for delta in self.shown)


def place_of(fold: ReplyFold) -> list[Any]:
    return [getattr(fold, name) for name in ReplyFold.__slots__ if name != "stranded"]


def words_of(deltas: Iterable[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def said(*words: str, epoch: int = 1, after: int = 0) -> list[Delta]:
    """Events one after the other, the first of which begins."""
    return [Delta(epoch, after + 1 + i, each, begins=i == 0) for i, each in enumerate(words)]


def finished(deltas: Sequence[Delta], epoch: int = 1) -> Finished:
    length = digest = 0
    for delta in deltas:
        length, digest = measure(delta, length, digest)
    return Finished(epoch, len(deltas), ["stop"], Usage(), length, digest)


@given(stories())
def test_what_a_reader_of_the_stream_is_shown_is_a_beginning_of_the_truth(story: Story) -> None:
    reader = Reader()
    for frame in story.stored:
        reader.read([frame])
        assert reader.shown == story.truth[: len(reader.shown)]


@given(stories(), st.data())
def test_reading_the_stream_again_at_any_time_shows_nothing_twice(story: Story, data: st.DataObject) -> None:
    reader, there = Reader(), 0
    while there < len(story.stored):
        there += data.draw(st.integers(1, 4), label="frames until the stream is read again from the beginning")
        reader.read(story.stored[:there])
    assert reader.shown == story.truth[: len(reader.shown)]
    assert reader.events == Reader().read(story.stored).events


@given(stories())
def test_reading_again_what_was_read_raises_no_gap(story: Story) -> None:
    under_way = [frame for frame in story.stored if frame is not story.end]
    reader = Reader().read(under_way)
    if not reader.gaps:
        assert reader.read(under_way).gaps == 0


@given(stories(), st.data())
def test_a_reader_that_let_live_frames_go_catches_up_from_the_stream(story: Story, data: st.DataObject) -> None:
    reader, there = Reader(), 0
    while there < len(story.stored):
        heard, let_go = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 3))
        reader.read(story.stored[there : there + heard])
        there += heard + let_go
        reader.read(story.stored[:there])
    assert reader.events == Reader().read(story.stored).events


@given(stories())
def test_a_reader_is_shown_all_that_the_stream_can_tell(story: Story) -> None:
    assert len(Reader().read(story.stored).shown) == story.readable


@given(stories())
def test_a_reply_is_finished_only_for_who_has_seen_all_of_it(story: Story) -> None:
    reader = Reader().read(story.stored)
    if isinstance(story.end, Finished):
        assert (reader.fold.end is story.end) == (reader.shown == story.truth)


@given(stories())
def test_a_frame_that_tells_of_more_than_was_shown_raises_a_gap(story: Story) -> None:
    fold = ReplyFold()
    for frame in story.stored:
        counts = fold.end is None and frame.epoch >= max(fold.epoch, fold.fenced)
        try:
            fold.feed(frame)
        except Gap:
            continue
        if counts and not isinstance(frame, Fence | Progress):
            assert fold.index >= frame.index


@given(stories(), st.data())
def test_whatever_is_lost_doubled_or_out_of_order_no_reader_takes_a_wrong_text_for_whole(
    story: Story, data: st.DataObject
) -> None:
    jumble = data.draw(st.lists(st.sampled_from(story.stored), max_size=40))
    reader = Reader().read(jumble)
    assert [delta.index for delta in reader.shown] == list(range(1, len(reader.shown) + 1))
    if isinstance(reader.fold.end, Finished):
        assert reader.words == words_of(story.truth)


@given(stories())
def test_nothing_is_shown_after_the_end(story: Story) -> None:
    reader = Reader().read(story.stored)
    if reader.fold.end is not None:
        assert reader.events[-1] is reader.fold.end


@given(stories())
def test_frames_fold_the_same_after_the_wire(story: Story) -> None:
    decode = codec.decoder(Frame).decode
    carried = Reader().read(decode(codec.encode(frame)) for frame in story.stored)
    assert carried.events == Reader().read(story.stored).events


def test_a_missing_event_raises_a_gap_until_a_snapshot_brings_it() -> None:
    deltas = said("a", "b", "c")
    reader = Reader().read([deltas[0], deltas[2]])
    assert (reader.words, reader.gaps) == ("a", 1)
    assert reader.read([Snapshot(1, 3, deltas)]).words == "abc"


def test_a_snapshot_shows_only_what_is_new() -> None:
    deltas = said("a", "b", "c")
    fold = ReplyFold()
    fold.feed(deltas[0])
    assert fold.feed(Snapshot(1, 3, deltas)) == deltas[1:]
    assert fold.feed(Snapshot(1, 3, deltas)) == []


def test_a_snapshot_of_a_later_round_does_not_hide_what_is_missing_of_an_earlier() -> None:
    deltas = [*said("a", "b"), *said("c", epoch=3, after=2)]
    reader = Reader().read([deltas[0], Snapshot(3, 3, deltas[2:])])
    assert (reader.words, reader.gaps) == ("a", 1)


def test_a_snapshot_without_events_does_not_hide_what_is_missing() -> None:
    deltas = said("a", "b")
    reader = Reader().read([deltas[0], Snapshot(3, 2, [])])
    assert (reader.words, reader.gaps) == ("a", 1)


def test_a_checkpoint_that_is_ahead_raises_a_gap() -> None:
    deltas = said("a", "b")
    assert Reader().read([deltas[0], Checkpoint(1, 2, 2, 0)]).gaps == 1
    assert Reader().read([*deltas, Checkpoint(1, 2, 2, 0)]).gaps == 0


def test_what_a_fenced_owner_still_says_is_not_shown() -> None:
    deltas = said("a", "b")
    assert Reader().read([deltas[0], Fence(2), deltas[1]]).words == "a"


def test_a_fence_comes_before_the_events_of_the_new_owner() -> None:
    reader = Reader().read([*said("a"), Fence(2), Start(2, 1, 2), Delta(2, 2, "b")])
    assert (reader.words, reader.gaps) == ("ab", 0)
    assert [event for event in reader.events if isinstance(event, Start)] == [Start(2, 1, 2)]


def test_events_of_an_owner_who_has_not_said_where_it_begins_raise_a_gap() -> None:
    assert Reader().read([*said("a"), Fence(2), Delta(2, 2, "b")]).gaps == 1


def test_an_owner_that_begins_behind_what_was_shown_raises_a_gap() -> None:
    """The stream has forgotten events that this reader has seen: what the new owner says next is not what follows."""
    new = [*said("a"), Delta(2, 2, "x"), Delta(2, 3, "y"), Delta(2, 4, "z")]
    reader = Reader().read(
        [*said("a", "b", "c"), Fence(2), Start(2, 1, 2), *new[1:], Snapshot(2, 4, new), finished(new, 2)]
    )
    assert (reader.words, reader.fold.end) == ("abc", None)
    assert isinstance(reader.read([Failed(3, 0, LATE)]).fold.end, Failed)


def test_an_owner_s_own_start_heard_again_is_no_gap() -> None:
    reader = Reader().read([Start(1, 0), *said("a", "b"), Start(1, 0)])
    assert (reader.words, reader.gaps) == ("ab", 0)


def test_the_first_attempt_is_not_announced() -> None:
    assert Reader().read([Start(1, 0, 1)]).events == []


def test_a_takeover_is_announced_once() -> None:
    assert Reader().read([Start(2, 0, 2), Start(2, 0, 2)]).events == [Start(2, 0, 2)]


def test_progress_is_shown_and_counts_as_no_event() -> None:
    progress = Progress(2, "clock", "c", "running")
    reader = Reader().read([*said("a"), progress, *said("b", epoch=3, after=1)])
    assert (reader.words, progress in reader.events) == ("ab", True)


def test_a_wrong_length_or_digest_is_no_end() -> None:
    deltas = said("a", "b")
    wrong = [finished(said("a", "c")), finished(said("a", "bb")), finished(said("a", "b", "c"))]
    reader = Reader().read([*deltas, *wrong])
    assert (reader.fold.end, reader.gaps) == (None, 3)
    assert reader.read([finished(deltas)]).fold.end is not None


def test_an_end_from_outside_is_heard_whatever_was_missed() -> None:
    reader = Reader().read([said("a", "b")[1], Fence(2), Failed(2, 0, LATE)])
    assert isinstance(reader.fold.end, Failed)


def test_an_owner_s_failure_waits_for_the_events_before_it() -> None:
    deltas = said("a", "b")
    reader = Reader().read([deltas[0], Failed(1, 2, LATE)])
    assert (reader.fold.end, reader.gaps) == (None, 1)
    assert reader.read([deltas[1], Failed(1, 2, LATE)]).words == "ab"


@pytest.mark.parametrize(
    "other",
    [
        Delta(1, 1, "b"),
        Delta(1, 1, reasoning="b"),
        Delta(1, 1, refusal="b"),
        Delta(1, 1, tool_calls=[ToolCall(id="c", function=FunctionCall(name="f", arguments="{}"))]),
    ],
)
def test_everything_that_is_shown_is_measured(other: Delta) -> None:
    assert measure(other, 0, 0) != measure(Delta(1, 1), 0, 0)


def test_the_measure_counts_characters_and_takes_broken_surrogates() -> None:
    assert measure(Delta(1, 1, "ü🙂\ud83d"), 5, 0)[0] == 8


@given(st.lists(st.text(max_size=3)))
def test_the_measure_does_not_depend_on_how_words_are_cut(words: list[str]) -> None:
    length = digest = 0
    for each in words:
        length, digest = measure(Delta(1, 1, each), length, digest)
    assert (length, digest) == measure(Delta(1, 1, "".join(words)), 0, 0)
