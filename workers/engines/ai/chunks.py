"""What a model says, piece by piece: OpenAI's `chat.completion.chunk`, as far as we use it.

Decoded straight from the stream. Servers differ: what they add is ignored, what they leave out has a default.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.openai import Usage


class FunctionDelta(msgspec.Struct, frozen=True, gc=False):
    """A part of a call's function. `arguments` is a piece of JSON text."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A part of a tool call. Parts with the same index belong together; a new id begins a new call."""

    index: int = 0
    id: str | None = None
    function: FunctionDelta | None = None


class ChunkDelta(msgspec.Struct, frozen=True, gc=False):
    """What is new in one choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None

    @property
    def thought(self) -> str:
        """The reasoning text, under whichever of its two names the server sends it."""
        return self.reasoning_content or (self.reasoning if isinstance(self.reasoning, str) else "")


class ChunkChoice(msgspec.Struct, frozen=True, gc=False):
    """One choice's part of a chunk. `finish_reason` is the server's own word."""

    index: int = 0
    delta: ChunkDelta = ChunkDelta()
    finish_reason: str | None = None
    logprobs: Any = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One event of the stream. `usage` may come alone at the end, or with the last choice."""

    choices: list[ChunkChoice] = []
    usage: Usage | None = None
    error: Any = None
    """Set only on the wire: an engine raises it as a Fault and never yields it."""
