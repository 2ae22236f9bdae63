"""Replies as they may happen: owners that speak, die and are followed, on a stream that loses what is not acknowledged.

A story is told frame by frame, as its owners publish them. `stored` is what the stream has, in its order; `truth` is
what the reply says in the end. It is told without the fold that the tests are about: `readable` follows the stream by
its own, plainer rule.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from schemas.faults import EngineTimeout
from schemas.openai import Usage
from schemas.replies import (
    Checkpoint,
    Delta,
    End,
    Failed,
    Fence,
    Finished,
    Frame,
    Progress,
    Snapshot,
    Start,
    measure,
)


class Story:
    """One reply. Each method is something that happens to it; after the end only a dead owner still speaks."""

    def __init__(self) -> None:
        self.stored: list[Frame] = []
        self.truth: list[Delta] = []
        self.end: End | None = None
        self.epoch = self.attempt = 1
        self.readable = 0
        self._known_epoch = 0
        self._begins = True
        self._round_from = 0
        self._dead: tuple[int, int] | None = None

    def say(self, words: str, lost: bool) -> None:
        """The owner shows one event, and the stream may lose it without a word."""
        delta = Delta(self.epoch, len(self.truth) + 1, words, begins=self._begins)
        self._begins = False
        self.truth.append(delta)
        if not lost:
            self._store(delta)

    def check(self) -> None:
        """The owner asks the stream whether it has all."""
        self._store(Checkpoint(self.epoch, len(self.truth), *self._measured()))

    def say_again(self) -> None:
        """The owner sends all of this round's events once more."""
        self._store(Snapshot(self.epoch, len(self.truth), self.truth[self._round_from :]))

    def take_over(self, lost: bool, late: list[str]) -> None:
        """The owner freezes, another goes on from what readers can have; the first wakes up and still speaks."""
        self._dead = (self.epoch, len(self.truth))
        self.epoch, self.attempt = self.epoch + 1, self.attempt + 1
        self._store(Fence(self.epoch))
        if self.readable < self._round_from:
            self.fail()  # what an earlier round had shown is gone
            return
        del self.truth[self.readable :]
        self._speak_late(late)
        self._begins = False
        if not lost:
            self._store(Start(self.epoch, len(self.truth), self.attempt))

    def call_a_tool(self) -> None:
        """The round ends with a call; a worker runs it, and a fresh owner goes on with the answer."""
        self.epoch += 1
        self._store(Progress(self.epoch, "clock", "call_1", "running"))
        self.epoch += 1
        self._begins, self._round_from = True, len(self.truth)

    def finish(self) -> None:
        """The reply is whole."""
        self._end(Finished(self.epoch, len(self.truth), ["stop"], Usage(), *self._measured()))

    def fail(self) -> None:
        """The owner gives up."""
        self._end(Failed(self.epoch, self.readable, EngineTimeout().record))

    def be_failed(self) -> None:
        """The turn is ended from outside."""
        self._dead = (self.epoch, len(self.truth))
        self.epoch += 1
        self._store(Fence(self.epoch))
        self._end(Failed(self.epoch, 0, EngineTimeout().record))
        self._speak_late(["too late"])

    def _end(self, end: End) -> None:
        self._store(end)
        self.end = end

    def _speak_late(self, late: list[str]) -> None:
        assert self._dead
        epoch, index = self._dead
        for offset, words in enumerate(late, 1):
            self._store(Delta(epoch, index + offset, words))

    def _measured(self) -> tuple[int, int]:
        length = digest = 0
        for delta in self.truth:
            length, digest = measure(delta, length, digest)
        return length, digest

    def _store(self, frame: Frame) -> None:
        self.stored.append(frame)
        if frame.epoch < self.epoch or self.end:
            return
        if isinstance(frame, Start):
            self._known_epoch = frame.epoch
        elif isinstance(frame, Snapshot) and self.readable >= self._round_from:
            self._known_epoch, self.readable = frame.epoch, max(self.readable, frame.index)
        elif isinstance(frame, Delta) and self._follows(frame):
            self._known_epoch, self.readable = frame.epoch, frame.index

    def _follows(self, delta: Delta) -> bool:
        return delta.index == self.readable + 1 and (delta.begins or delta.epoch == self._known_epoch)


WORDS = st.text(alphabet="ab ü🙂", min_size=1, max_size=3)
Happening = Callable[[Story], None]
HAPPENINGS: st.SearchStrategy[Happening] = st.one_of(
    st.builds(lambda words, lost: lambda story: story.say(words, lost), WORDS, st.sampled_from([False, False, True])),
    st.builds(lambda words: lambda story: story.say(words, lost=False), WORDS),
    st.just(Story.check),
    st.just(Story.say_again),
    st.just(Story.call_a_tool),
    st.builds(
        lambda lost, late: lambda story: story.take_over(lost, late),
        st.sampled_from([False, False, True]),
        st.lists(WORDS, max_size=2),
    ),
)
ENDS: st.SearchStrategy[Happening] = st.sampled_from([Story.finish, Story.finish, Story.fail, Story.be_failed])


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Any reply with any end."""
    story = Story()
    for happening in draw(st.lists(HAPPENINGS, max_size=14)):
        if story.end is None:
            happening(story)
    if story.end is None:
        draw(ENDS)(story)
    return story
