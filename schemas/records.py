"""Questions and commands for the records worker, the only owner of account and session data."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.faults import FaultRecord
from schemas.openai import Usage


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking."""

    user_id: str
    role: str = "user"
    """`user` or `admin`."""
    key_id: str | None = None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation, as the API shows it. Times are RFC 3339 in UTC."""

    id: str
    title: str | None
    personality_id: str | None
    """None for the hidden session of a raw model."""
    message_count: int
    last_message_at: str | None
    created_at: str
    object: str = "chat.session"


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a session, as the API shows it."""

    id: str
    role: str
    content: Any
    turn_id: str | None
    parent_id: str | None
    created_at: str
    metadata: dict[str, Any]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn, as the API shows it. `timings` in milliseconds since it was asked."""

    id: str
    state: str
    session_id: str
    model: str
    personality_id: str | None
    attempts: int
    usage: Usage | None
    timings: dict[str, float]
    created_at: str
    finished_at: str | None
    error: FaultRecord | None = None
    object: str = "chat.turn"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A list, as the API shows it."""

    data: list[Any]
    has_more: bool = False
    next_cursor: str | None = None
    object: str = "list"


class FindCaller(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Whose key has this SHA-256 (hex)? Answered with `Caller`, or refused. The key itself never travels."""

    key_hash: str


class CreateSession(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    user_id: str
    session_id: str
    personality_id: str
    title: str | None = None


class ListSessions(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    user_id: str
    limit: int
    cursor: str | None = None


class GetSession(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    user_id: str
    session_id: str


class UpdateSession(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """None leaves a value as it is; an empty title clears it."""

    user_id: str
    session_id: str
    title: str | None = None
    personality_id: str | None = None


class DeleteSession(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    user_id: str
    session_id: str


class ListMessages(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    user_id: str
    session_id: str
    limit: int
    cursor: str | None = None


class GetTurn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    user_id: str
    turn_id: str


class StopTurn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Stop a turn: committed before it is answered, with `Turn` as it then stands. An ended turn stays as it is."""

    user_id: str
    turn_id: str


class GetReply(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The stored reply of a turn, as frames: what a reader asks for when the stream no longer has it."""

    user_id: str
    turn_id: str
    after: int = 0
    """Only events with a greater index: a long reply is read page by page."""


class StoredReply(msgspec.Struct, frozen=True, kw_only=True):
    """A turn's stored events, and its end where it has one. Each is an encoded frame. Of a turn that goes on: the
    rounds that are committed."""

    turn_id: str
    session_id: str
    personality_id: str | None
    model: str
    shard: int
    created: int
    state: str
    frames: list[bytes]
    more: bool = False
    """Whether more follows: ask again, behind the last event of this page. The end is in the last page."""
    ignored_messages: int = 0
    """How many of the request's messages its session made superfluous."""


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Is the records worker there, and does its database answer?"""


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """`database_ms`: round trip in milliseconds."""

    database_ms: float
    database_time: float | None = None
    """What time it is there, in Unix seconds."""


Query = (
    FindCaller
    | CreateSession
    | ListSessions
    | GetSession
    | UpdateSession
    | DeleteSession
    | ListMessages
    | GetTurn
    | StopTurn
    | GetReply
    | Ping
)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the records worker says: a value (msgpack of the type the query's docstring or name implies) or a fault."""

    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    """msgpack; nil where the answer says nothing but "done", or is a fault."""
    fault: FaultRecord | None = None


class CallersRevoked(msgspec.Struct, frozen=True, kw_only=True):
    """Forget this key, or every key of this user."""

    key_hash: str | None = None
    user_id: str | None = None
