"""The shapes of a chat's answer, for the documentation: `sse` and `collect` write them by hand."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from schemas.openai import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class ToolInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool of the engine's own at work."""

    name: str
    call_id: str
    state: str


class CozyInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine says of the turn: all ids with the first chunk or the whole answer, later only what changed."""

    turn_id: str | None = None
    session_id: str | None = None
    personality_id: str | None = None
    ignored_messages: int | None = None
    """How many messages of the request the session knew already."""
    attempts: int | None = None
    """How many workers have written this reply, where more than one."""
    tool: ToolInfo | None = None
    state: str | None = None
    stopped: bool | None = None


class AnsweredFunction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function of the client's, to be called by it."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""


class AnsweredToolCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call the client is asked to make. `index` in streams only."""

    id: str
    type: Literal["function"]
    function: AnsweredFunction
    index: int | None = None


class AnsweredMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reply."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[AnsweredToolCall] | None = None


class ChatChoice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `n` replies."""

    index: int
    message: AnsweredMessage
    logprobs: dict[str, Any] | None
    finish_reason: FinishReason


class ChatCompletion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    cozy: CozyInfo


class ChoiceDelta(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[AnsweredToolCall] | None = None


class ChunkChoice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `n` replies, as it grows."""

    index: int
    delta: ChoiceDelta
    logprobs: dict[str, Any] | None = None
    finish_reason: FinishReason | None


class ChatCompletionChunk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data of one event of a stream. After the last comes the data `[DONE]`; where the reply breaks off, an
    `ErrorBody`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    cozy: CozyInfo | None = None
