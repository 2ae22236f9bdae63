"""A turn: one message and its reply. Its states, what starts it, what moves it on, and the verdict on it."""

from __future__ import annotations

import enum

import msgspec

from schemas.faults import FaultRecord
from schemas.openai import ChatRequest


class TurnState(enum.StrEnum):
    """Where a turn stands. PostgreSQL is the only authority on it."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    PREPARED = "prepared"
    GENERATING = "generating"
    CALLING_TOOLS = "calling_tools"
    AWAITING_APPROVAL = "awaiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


S = TurnState
ENDS = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.INTERRUPTED})
_STOPS = {S.FAILED, S.CANCELLED}
MOVES: dict[TurnState, frozenset[TurnState]] = {
    S.QUEUED: frozenset({S.ACCEPTED} | _STOPS),
    S.ACCEPTED: frozenset({S.PREPARED} | _STOPS),
    S.PREPARED: frozenset({S.GENERATING} | _STOPS),
    S.GENERATING: frozenset({S.CALLING_TOOLS, S.COMPLETED, S.INTERRUPTED} | _STOPS),
    S.CALLING_TOOLS: frozenset({S.PREPARED, S.AWAITING_APPROVAL, S.FAILED}),
    S.AWAITING_APPROVAL: frozenset({S.CALLING_TOOLS} | _STOPS),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
    S.INTERRUPTED: frozenset(),
}
"""Every move there is. `workers/storage` makes no other; `tests/schemas/test_turns.py` compares the two.

A turn that is stopped while it calls tools is prepared once more, since what its tools did must be recorded first; the
round that begins then ends at once.
"""


class TurnRequested(msgspec.Struct, frozen=True, kw_only=True, tag="requested"):
    """Please take this turn. The only event that carries a body: afterwards PostgreSQL has it."""

    turn_id: str
    user_id: str
    request_id: str
    request: ChatRequest
    fingerprint: str
    """Of the body: the same key with another body is refused; a retry without a key is recognised by it."""
    verdict_subject: str
    asked_at: float
    """Unix seconds, by the gateway's clock."""
    expires_at: float
    """Unix seconds by PostgreSQL's clock, as its gateway knows it. Past it the gateway tells its client to come back,
    so the turn must not be accepted."""
    scripted: dict[str, str] = {}
    """`x-scripted-*` headers for the scripted model server. Empty outside development."""
    keyed: bool = False
    retried: bool = False
    """The client's SDK says it sends this again (`x-stainless-retry-count`)."""

    @property
    def question(self) -> str:
        """The id of the request this copy belongs to: the one its verdict is told under."""
        return self.verdict_subject.rpartition(".")[2]


class TurnReleased(msgspec.Struct, frozen=True, kw_only=True, tag="released"):
    """A queued turn's time has come: the turn before it in the session has ended."""

    turn_id: str


TurnArrival = TurnRequested | TurnReleased


class TurnPrepared(msgspec.Struct, frozen=True, kw_only=True):
    """The turn's context for this round is stored; a reply can be generated."""

    turn_id: str
    round: int = 0


class TurnToolsCalled(msgspec.Struct, frozen=True, kw_only=True):
    """The model asked for tools of ours in this round; the calls are stored."""

    turn_id: str
    round: int


class TurnCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """The reply is stored; memory may be written."""

    turn_id: str


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """The turn's row is committed: from here on it reaches a terminal state."""

    turn_id: str
    """Not the asked one where a retry was recognised: read that turn's reply instead."""
    session_id: str
    personality_id: str | None
    shard: int
    created: int
    """Unix seconds of the first acceptance, the same on every chunk."""
    ignored_messages: int = 0
    attached: bool = False
    """The turn existed before: its reply may already be under way or over."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The turn was not taken; nothing of it is kept."""

    turn_id: str
    fault: FaultRecord


Verdict = Accepted | Refused
