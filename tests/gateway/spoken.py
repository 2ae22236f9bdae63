"""A reply as its stages leave it: its frames in the stream, and what PostgreSQL has of it. Written by a test."""

from __future__ import annotations

from ops.runtime.bus import Bus, BusUnavailable
from schemas import codec, subjects
from schemas.faults import FaultRecord
from schemas.ids import new_id
from schemas.openai import FunctionCall, ToolCall, Usage
from schemas.records import GetReply, StoredReply
from schemas.replies import Delta, End, Failed, Fence, Finished, Frame, Progress, ReplyFold, Snapshot, Start
from schemas.turns import TurnState
from workers.records.stored_reply import stored_reply
from workers.storage.turn_rows import TurnEnd
from workers.storage.turns_read import RepliedTurn

CALL = ToolCall(id="call_1", function=FunctionCall("weather", '{"city": "Zürich"}'))
USAGE = Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)


class Spoken:
    """One reply. Every method writes frames; `frames` holds them as they are published."""

    def __init__(self) -> None:
        self.turn_id, self.session_id = new_id(), new_id()
        self.frames: list[Frame] = []
        self.said: list[Delta] = []
        self.committed = 0
        """How many of the events are in PostgreSQL before the end."""
        self.end: End | None = None
        self.fold = ReplyFold()

    def begin(self, epoch: int, attempt: int = 1) -> Spoken:
        """An owner begins."""
        if epoch > 1:
            self.frames.append(Fence(epoch))
        return self._put(Start(epoch, self.fold.index, attempt))

    def say(self, *texts: str, choice: int = 0, reasoning: str = "") -> Spoken:
        """Some events."""
        for text in texts:
            self._put(Delta(self.fold.epoch, self.fold.index + 1, text, choice, reasoning=reasoning))
        return self

    def call(self) -> Spoken:
        """The model calls a tool of the client's."""
        return self._put(Delta(self.fold.epoch, self.fold.index + 1, tool_calls=[CALL]))

    def use(self, tool: str) -> Spoken:
        """A tool of ours is at work, and has done."""
        for state in ("started", "succeeded"):
            self._put(Progress(self.fold.epoch, tool, "call_9", state))
        return self

    def commit(self) -> Spoken:
        """A round ends here."""
        self.committed = len(self.said)
        return self

    def finish(self, *reasons: str, stopped: bool = False) -> Spoken:
        """The end."""
        fold, state = self.fold, "cancelled" if stopped else "completed"
        reasons = reasons or ("stop",)
        return self._put(
            Finished(fold.epoch, fold.index, list(reasons), USAGE, fold.length, fold.digest, state, stopped)
        )

    def fail(self, state: str = "failed") -> Spoken:
        """The end, and no good one."""
        fault = FaultRecord(code="ENGINE_FAILED", message="The model server failed.")
        return self._put(Failed(self.fold.epoch, self.fold.index, fault, state))

    def _put(self, frame: Frame) -> Spoken:
        for event in self.fold.feed(frame):
            if isinstance(event, Delta):
                self.said.append(event)
        if isinstance(frame, Finished | Failed):
            self.end = frame
        self.frames.append(frame)
        return self

    async def publish(self, bus: Bus, begin: int = 0, stop: int | None = None) -> None:
        """Put frames into the stream; it has them when this returns."""
        *first, last = self.frames[begin:stop]
        subject = subjects.reply(0, self.turn_id)
        for frame in first:
            await bus.publish(subject, codec.encode(frame))
        await bus.store(subject, codec.encode(last), msg_id=None)

    async def heal(self, bus: Bus) -> None:
        """All of it in one frame, as its owner sends it when asked."""
        snapshot = Snapshot(self.fold.epoch, self.said[-1].index, self.said)
        await bus.store(subjects.reply(0, self.turn_id), codec.encode(snapshot), msg_id=None)

    def stored(self, question: GetReply, *, ended: bool = True) -> StoredReply:
        """What the records worker says of it: before the end only the committed rounds."""
        end = self.end
        state = end.state if ended and end else TurnState.GENERATING
        said = self.said if ended else self.said[: self.committed]
        row = RepliedTurn(
            turn_id=self.turn_id,
            personality_id="default",
            model="cozy/default",
            created=1,
            ignored_messages=2,
            reply=[codec.encode(said)],
            end=TurnEnd(
                state=state,
                epoch=self.fold.epoch + 1,
                shard=0,
                session_id=self.session_id,
                shown_index=self.fold.index,
                shown_length=self.fold.length,
                shown_digest=self.fold.digest,
                finish_reasons=end.finish_reasons if isinstance(end, Finished) else None,
                usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
                fault={"code": "ENGINE_FAILED", "message": "The model server failed."},
            ),
        )
        return stored_reply(row, question.after)


async def is_heard(bus: Bus, made: Spoken) -> bool:
    """Whether anybody listens to this reply, as its owner asks it."""
    try:
        await bus.ask(subjects.listeners(made.turn_id), b"", 1.0)
    except BusUnavailable:
        return False
    return True


def plain() -> Spoken:
    return Spoken().begin(1).say("Hello", " there", ", my", " friend.").finish()


def two_choices() -> Spoken:
    return Spoken().begin(1).say("A", "b").say("X", choice=1).say("c").say("y", choice=1).finish("stop", "length")


def tools_of_ours() -> Spoken:
    spoken = Spoken().begin(1).say("Let me", " look.").commit().use("clock")
    return spoken.begin(3).say(" It is", " noon.").finish()


def tools_of_the_client() -> Spoken:
    return Spoken().begin(1).say("I ask.").call().finish("tool_calls")


def many_alphabets() -> Spoken:
    return Spoken().begin(1).say("Grüße,\n", "世界 ", "🎉 ", 'a "quote"\\', "\u2028", "data: id: 7\n\n").finish()


def with_reasoning() -> Spoken:
    return Spoken().begin(1).say("", reasoning="Hm.").say("", reasoning=" Well.").say("Yes", ".").finish("length")


def taken_over() -> Spoken:
    return Spoken().begin(1).say("One", " two").begin(2, attempt=2).say(" three").begin(3, attempt=3).finish()


def nothing_said() -> Spoken:
    return Spoken().begin(1).finish()


def stopped() -> Spoken:
    return Spoken().begin(1).say("I was", " going to").finish(stopped=True)


def interrupted() -> Spoken:
    return Spoken().begin(1).say("I was", " going to").fail("interrupted")


KINDS = (
    plain, two_choices, tools_of_ours, tools_of_the_client, many_alphabets, with_reasoning, taken_over, nothing_said,
    stopped, interrupted,
)  # fmt: skip
