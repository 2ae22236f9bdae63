"""Frames joined into what is shown: whatever came when, nobody is shown anything that was not said."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.joining import Differs, Joining, Shown
from schemas import codec
from schemas.faults import EngineTimeout
from schemas.records import GetReply
from schemas.replies import Delta, Failed, Fence, Frame, Start
from tests.gateway import spoken
from tests.gateway.spoken import Spoken
from tests.schemas.stories import Story, stories


def encoded(frames: Sequence[Frame]) -> list[bytes]:
    return [codec.encode(frame) for frame in frames]


def words(shown: Sequence[Shown]) -> list[Delta]:
    return [event for event in shown if isinstance(event, Delta)]


def heard(frames: Sequence[Frame]) -> tuple[Joining, list[Shown]]:
    joining = Joining()
    return joining, joining.heard(encoded(frames))


@given(stories(), st.data())
def test_who_comes_late_and_reads_back_is_shown_what_others_were(story: Story, data: st.DataObject) -> None:
    since = data.draw(st.integers(0, len(story.stored)))
    until = data.draw(st.integers(since, len(story.stored)))
    # A fence voids what is read back after it: its reader needs the new owner's snapshot.
    assume(not any(isinstance(frame, Fence) for frame in story.stored[since:until]))
    everything, others = heard(story.stored)
    late = Joining()
    late.unread = True
    shown = late.heard(encoded(story.stored[since:until]))
    shown += late.read_back(encoded(story.stored[:until])) + late.heard(encoded(story.stored[until:]))
    assert words(shown) == words(others)
    assert late.fold.end == everything.fold.end


@given(stories())
def test_what_is_shown_is_the_beginning_of_what_was_said(story: Story) -> None:
    joining, shown = heard(story.stored)
    assert words(shown) == story.truth[: joining.fold.index]
    assert [delta.index for delta in words(shown)] == list(range(1, joining.fold.index + 1))


@given(stories(), st.data())
def test_it_does_not_matter_how_many_frames_come_at_once(story: Story, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(story.stored)))) | {0, len(story.stored)})
    joining = Joining()
    shown = [event for begin, end in pairwise(cuts) for event in joining.heard(encoded(story.stored[begin:end]))]
    assert shown == heard(story.stored)[1]


def test_what_lies_behind_a_gap_is_shown_once_it_is_closed() -> None:
    made = spoken.plain()
    joining, shown = heard([*made.frames[:2], *made.frames[3:]])
    assert (words(shown), joining.has_gap, joining.has_end_behind) == (made.said[:1], True, True)
    assert joining.read_back(encoded(made.frames)) == [*made.said[1:], made.end]
    assert not joining.has_gap


def test_of_what_was_let_go_behind_a_gap_it_is_known_that_it_was_there() -> None:
    made = spoken.plain()
    joining, _ = heard([made.frames[0], *made.frames[2:]])
    joining.let_go()
    assert (joining.has_gap, len(joining.behind)) == (True, 1)


@pytest.mark.parametrize("unread", [True, False])
def test_a_failure_is_kept_back_from_who_has_still_to_read(unread: bool) -> None:
    failed = Failed(3, 0, EngineTimeout().record)
    joining = Joining()
    joining.unread = unread
    assert joining.heard(encoded([failed]), reading=not unread) == []
    assert joining.read_back(encoded([*spoken.plain().frames[:2], Fence(3), failed]))[-1] == failed


def test_a_stored_page_frees_what_waits_behind_the_gap() -> None:
    made = Spoken().begin(1).say("a", "b").commit().begin(2).say("c").finish()
    joining, shown = heard(made.frames[3:])
    assert (shown, joining.has_gap) == ([], True)
    page = made.stored(GetReply(user_id="ann", turn_id=made.turn_id), ended=False)
    assert joining.stored(page) == [*made.said, made.end]
    assert not joining.has_gap


def test_storage_that_says_other_words_than_were_shown_differs() -> None:
    shown, stored = Spoken().begin(1).say("This", " and", " that"), Spoken().begin(1).say("Something", " else").finish()
    joining, _ = heard(shown.frames)
    with pytest.raises(Differs):
        joining.stored(stored.stored(GetReply(user_id="ann", turn_id=stored.turn_id, after=3)))


def test_who_has_seen_what_is_lost_waits_for_nothing_that_is_said_now() -> None:
    joining, _ = heard(Spoken().begin(1).say("This", " and", " that").frames)
    assert joining.heard(encoded([Fence(2), Start(2, 1, 2), Delta(2, 2, "other")])) == []
    assert joining.fold.stranded
    assert not joining.has_gap
