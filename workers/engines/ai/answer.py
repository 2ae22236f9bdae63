"""A whole answer: the chunks of a stream folded together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from schemas.openai import FunctionCall, ToolCall, Usage
from workers.engines.ai.chunks import Chunk, ChunkChoice, ToolCallDelta


class AnswerChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One finished choice."""

    text: str
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a model said to one call; choices in their order."""

    choices: tuple[AnswerChoice, ...]
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """The first choice's words."""
        return self.choices[0].text if self.choices else ""


class ToolCallFold:
    """Joins the parts of one choice's tool calls.

    Some servers give every call the index 0: an id that differs from the one at its index begins a new call.
    """

    def __init__(self) -> None:
        self._slots: dict[int, list[str]] = {}
        self._calls: list[list[str]] = []

    def feed(self, part: ToolCallDelta) -> None:
        """Add one part."""
        call = self._slots.get(part.index)
        if call is None or (part.id and call[0] and part.id != call[0]):
            call = self._slots[part.index] = ["", "", ""]
            self._calls.append(call)
        call[0] = part.id or call[0]
        if part.function is not None:
            call[1] += part.function.name or ""
            call[2] += part.function.arguments or ""

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls as they stand, in the order they began."""
        return tuple(ToolCall(id, FunctionCall(name, arguments)) for id, name, arguments in self._calls)


class _ChoiceFold:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.tool_calls = ToolCallFold()
        self.finish_reason: str | None = None

    def feed(self, choice: ChunkChoice) -> None:
        delta = choice.delta
        self.text.append(delta.content or "")
        self.reasoning.append(delta.thought)
        self.refusal.append(delta.refusal or "")
        for part in delta.tool_calls or ():
            self.tool_calls.feed(part)
        self.finish_reason = choice.finish_reason or self.finish_reason

    def done(self) -> AnswerChoice:
        return AnswerChoice(
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            refusal="".join(self.refusal),
            tool_calls=self.tool_calls.calls(),
            finish_reason=self.finish_reason,
        )


async def whole(stream: AsyncGenerator[list[Chunk], None]) -> ModelAnswer:
    """Read a stream to its end. The stream is closed in any case; its faults go through."""
    choices: dict[int, _ChoiceFold] = {}
    usage: Usage | None = None
    async with aclosing(stream):
        async for chunks in stream:
            for chunk in chunks:
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    choices.setdefault(choice.index, _ChoiceFold()).feed(choice)
    return ModelAnswer(choices=tuple(choices[index].done() for index in sorted(choices)), usage=usage)
