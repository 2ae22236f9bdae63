"""A reply: what comes back to a turn, as numbered frames; and the fold that every reader applies to them."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from schemas.faults import FaultRecord
from schemas.openai import ToolCall, Usage


class Start(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    """An owner begins: what it says next has index `index + 1`. Frames of older epochs are void from here on."""

    epoch: int
    index: int
    attempt: int = 1


class Fence(msgspec.Struct, frozen=True, array_like=True, tag="fence"):
    """A new owner is about to take over: what older epochs publish after this frame never happened."""

    epoch: int


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """One visible event. Indexes are dense from 1 within a reply, across owners and rounds."""

    epoch: int
    index: int
    text: str = ""
    choice: int = 0
    reasoning: str = ""
    tool_calls: list[ToolCall] | None = None
    """Tools the *client* declared: whole calls, never half."""
    refusal: str = ""
    logprobs: Any = None
    tokens: int = 1
    """How many of the model's own deltas travel in this one: about as many tokens."""
    begins: bool = False
    """Stands for a `Start` right before it: the owner of a fresh round begins here."""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, tag="checkpoint"):
    """Acknowledged by the stream: up to here nothing may be missing. `length` in characters, `digest` as CRC-32."""

    epoch: int
    index: int
    length: int
    digest: int


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """All visible events so far, published after a hole was possible: heals any gap, and reading it twice is safe."""

    epoch: int
    index: int
    deltas: list[Delta]


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="progress"):
    """A tool of ours is at work. Shown in `cozy`, never as a tool call."""

    epoch: int
    tool: str
    call_id: str
    state: str


class Finished(msgspec.Struct, frozen=True, array_like=True, tag="finished"):
    """The reply is stored. `length` and `digest` let a reader prove that it saw all of it."""

    epoch: int
    index: int
    finish_reasons: list[str]
    """One per choice."""
    usage: Usage
    length: int
    digest: int
    state: str = "completed"
    stopped: bool = False


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The turn ended without a whole reply; what was said so far stays said."""

    epoch: int
    index: int
    fault: FaultRecord
    state: str = "failed"


Frame = Start | Fence | Delta | Checkpoint | Snapshot | Progress | Finished | Failed
End = Finished | Failed


def measure(delta: Delta, length: int, digest: int) -> tuple[int, int]:
    """The running length (characters) and CRC-32 of a reply after one more delta."""
    words = delta.reasoning + delta.text + delta.refusal
    for call in delta.tool_calls or ():
        words += call.id + call.function.name + call.function.arguments
    return length + len(words), zlib.crc32(words.encode("utf-8", "surrogatepass"), digest)


class Gap(Exception):
    """A frame is missing: read the stream again, or wait for a snapshot."""


class ReplyFold:
    """Folds frames, in the stream's order, into what may be shown; the same for clients and for a new owner.

    Frames of an older epoch are dropped, repeated ones are dropped, a missing one raises `Gap` and changes nothing.
    """

    __slots__ = ("attempt", "digest", "end", "epoch", "fenced", "index", "length", "started", "stranded", "told")

    def __init__(self) -> None:
        self.epoch = 0
        self.attempt = 1
        self.fenced = 0
        self.index = 0
        self.length = 0
        self.digest = 0
        self.started = False
        self.stranded = False
        self.told: tuple[Progress, ...] = ()
        self.end: End | None = None

    def feed(self, frame: Frame) -> list[Delta | Progress | Start | End]:
        """What this frame adds to what is shown: nothing, one event, or (a snapshot) several."""
        if self.end is not None or frame.epoch < max(self.epoch, self.fenced):
            return []
        if type(frame) is Delta:
            return self._delta(frame)
        if isinstance(frame, Fence):
            self.fenced = frame.epoch
            return []
        return self._other(frame)

    def _delta(self, frame: Delta) -> list[Delta | Progress | Start | End]:
        if frame.index <= self.index:
            return []
        if frame.index != self.index + 1 or (frame.epoch != self.epoch and not frame.begins):
            raise Gap
        self.epoch, self.started = frame.epoch, True
        self._take(frame)
        return [frame]

    def _take(self, frame: Delta) -> None:
        self.index = frame.index
        self.length, self.digest = measure(frame, self.length, self.digest)

    def _other(self, frame: Frame) -> list[Delta | Progress | Start | End]:
        if self.stranded and not isinstance(frame, Failed):
            raise Gap
        if isinstance(frame, Start):
            if frame.index > self.index or (frame.index < self.index and frame.epoch > self.epoch):
                # Behind what was shown: the stream has forgotten what this reader saw. Nothing can honestly follow.
                self.stranded = self.stranded or frame.index < self.index
                raise Gap
            again = frame.attempt > self.attempt
            self.epoch, self.attempt, self.started = frame.epoch, frame.attempt, True
            return [frame] if again else []
        if isinstance(frame, Snapshot):
            fresh = [delta for delta in frame.deltas if delta.index > self.index]
            if frame.index > (fresh[-1].index if fresh else self.index) or (fresh and fresh[0].index != self.index + 1):
                raise Gap
            self.epoch = frame.epoch
            for delta in fresh:
                self._take(delta)
            return list(fresh)
        if isinstance(frame, Progress):
            if frame in self.told:
                return []
            self.told += (frame,)
            return [frame]
        if isinstance(frame, Checkpoint):
            if frame.index > self.index:
                raise Gap
            return []
        assert isinstance(frame, Finished | Failed)
        if frame.index > self.index or (isinstance(frame, Finished) and self._differs(frame)):
            raise Gap
        self.end = frame
        return [frame]

    def _differs(self, frame: Finished) -> bool:
        return (frame.length, frame.digest) != (self.length, self.digest)
