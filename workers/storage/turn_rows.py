"""What goes into the turns' queries and what comes out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.context import ContextBundle
from schemas.faults import EngineInternal, FaultRecord
from schemas.openai import Usage
from schemas.replies import Delta, Failed, Finished
from schemas.turns import TurnRequested, TurnState


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to store. `metadata` may carry `tool_calls`, `tool_call_id` and what the API should show."""

    id: str
    role: str
    content: Any
    metadata: dict[str, Any] = {}


class NewTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn to accept."""

    arrival: TurnRequested
    session_id: str
    shard: int
    state: TurnState
    personality_id: str | None
    bundle: ContextBundle | None
    messages: Sequence[NewMessage]
    ignored_messages: int = 0


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that was accepted just now: when, in Unix seconds, and whether it runs or waits."""

    created: int
    state: TurnState


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that is there already."""

    turn_id: str
    user_id: str
    session_id: str
    personality_id: str | None
    shard: int
    state: str
    round: int
    fingerprint: str
    ignored_messages: int
    created: int


class LockedSession(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's session, held until the transaction ends."""

    id: str
    personality_id: str | None


class ReleasedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A queued turn whose time has come. `arrival`: msgpack of TurnRequested."""

    turn_id: str
    session_id: str
    personality_id: str | None
    shard: int
    round: int
    arrival: bytes


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A turn in this worker's hands, as of `epoch`. `shown_*`: what earlier rounds have shown the reader."""

    turn_id: str
    user_id: str
    session_id: str
    shard: int
    epoch: int
    attempts: int
    round: int
    arrival: bytes
    bundle: bytes
    shown_index: int
    shown_length: int
    shown_digest: int
    usage: dict[str, Any] | None
    taken_over: bool
    created_at: float
    stopped: bool = False
    """Its user said stop: nothing more is to be said."""


class ToolsClaimed(msgspec.Struct, frozen=True, kw_only=True):
    """A round of tool calls in this worker's hands, as of `epoch`."""

    turn_id: str
    user_id: str
    session_id: str
    shard: int
    epoch: int
    round: int
    bundle: bytes
    personality_id: str | None
    stopped: bool = False
    """Its user said stop: no call may start."""


class AskedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call of a round, and what is recorded of it."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: str
    result: str | None


class CallStart(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a call may have its effect: not where its turn was `stopped`; `first` where it was not started before."""

    stopped: bool
    first: bool


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """Where a turn stands. `claim_in`: seconds until another may claim it, should its owner stay silent; 0 for now."""

    state: str
    round: int
    shard: int
    epoch: int
    claim_in: float = 0.0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner commits at the end of a round: what it has said, and the measure of all that was shown so far."""

    said: Sequence[Delta]
    shown_index: int
    shown_length: int
    shown_digest: int
    usage: Usage
    timings: dict[str, float]


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A turn has ended."""

    session_id: str


class TurnEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn ended, as committed."""

    state: str
    epoch: int
    shard: int
    session_id: str
    shown_index: int
    shown_length: int
    shown_digest: int
    finish_reasons: list[str] | None
    usage: dict[str, Any] | None
    fault: dict[str, Any] | None
    round: int = 0

    def frame(self) -> Finished | Failed:
        """The frame that tells it. A cancelled turn ended in good order: its text is kept, and marked as stopped."""
        if self.state not in (TurnState.COMPLETED, TurnState.CANCELLED):
            fault = msgspec.convert(self.fault, FaultRecord) if self.fault else EngineInternal().record
            return Failed(self.epoch, self.shown_index, fault, self.state)
        return Finished(
            self.epoch,
            self.shown_index,
            self.finish_reasons or ["stop"],
            msgspec.convert(self.usage or {}, Usage),
            self.shown_length,
            self.shown_digest,
            self.state,
            self.state == TurnState.CANCELLED,
        )


class FailedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that was failed from outside, with the epoch that voids its owner."""

    turn_id: str
    session_id: str
    shard: int
    epoch: int


class StoppedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that was stopped: ended as `cancelled`, or in the state that its owner has yet to leave."""

    turn_id: str
    session_id: str
    shard: int
    round: int
    state: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that was let go on."""

    turn_id: str
    shard: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that stood still."""

    turn_id: str
    state: str
    round: int
    shard: int
    stopped: bool = False


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """The text so far of a reply under way."""

    message_id: str
    turn_id: str
    epoch: int
    text: str
