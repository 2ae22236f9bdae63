"""Pure: folds a model's chunks into what may be shown now, and what is known only at the end."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.ids import part_of
from schemas.openai import CHARACTERS_PER_TOKEN, FunctionCall, ToolCall, Usage
from workers.engines.ai.answer import ToolCallFold
from workers.engines.ai.chunks import Chunk
from workers.generation.takeover import Prefix
from workers.generation.writer import Piece


def _storable(words: str | None) -> str:
    """The words without U+0000, which PostgreSQL keeps in no text: what is shown must be what is stored."""
    return words.replace("\0", "") if words else ""


class Listening:
    """One model answer as it comes in. Tool calls are held back until they are whole.

    `before` is what was shown before it. A model that goes on thinks anew: its thoughts stay hidden, since others were
    shown, or none.
    """

    def __init__(self, before: Prefix | None = None) -> None:
        self.before = before
        self.begun = False
        """Whether the server has said anything, be it nothing to show."""
        self.swallowed = 0
        """Tokens that were said and not shown: a preamble, or words said twice."""
        self.finish_reasons: dict[int, str] = {}
        self.usage: Usage | None = None
        self.chunks_with_words = 0
        self._calls: dict[int, ToolCallFold] = {}
        self._goes_on = bool(before and before.said)

    @property
    def calling(self) -> bool:
        """Whether it has begun to call tools."""
        return bool(self._calls)

    def hear(self, chunks: Sequence[Chunk]) -> list[Piece]:
        """What these chunks let us show."""
        pieces: list[Piece] = []
        self.begun = True
        for chunk in chunks:
            if chunk.usage is not None:
                self.usage = chunk.usage
            for choice in chunk.choices:
                delta = choice.delta
                if choice.finish_reason:
                    self.finish_reasons[choice.index] = choice.finish_reason
                thought = "" if self._goes_on else _storable(delta.thought)
                words = (_storable(delta.content), thought, _storable(delta.refusal))
                if any(words):
                    self.chunks_with_words += 1
                    pieces.append(Piece(choice.index, *words, None, choice.logprobs))
                for call in delta.tool_calls or ():
                    self._calls.setdefault(choice.index, ToolCallFold()).feed(call)
        return pieces

    def calls(self, turn_id: str, round: int, choice: int = 0) -> list[ToolCall]:
        """The whole calls of a choice, in the model's order. A call the server gave no id gets a deterministic one."""
        fold = self._calls.get(choice)
        return [
            ToolCall(
                id=call.id or f"call_{part_of(turn_id, 'call', round, choice, index)[-12:]}",
                function=FunctionCall(_storable(call.function.name), _storable(call.function.arguments)),
            )
            for index, call in enumerate(fold.calls() if fold else ())
        ]

    def finish_reason(self, choice: int, calls: Sequence[ToolCall]) -> str:
        """Why a choice ended, in OpenAI's words; `tool_calls` only where there are some for the client to make."""
        if calls:
            return "tool_calls"
        said = self.finish_reasons.get(choice)
        return said if said in ("length", "content_filter") else "stop"

    def usage_or_estimate(self, prompt_characters: int) -> Usage:
        """What the provider counted; where it said nothing, a chunk with words counts as one token."""
        if self.usage is not None:
            return self.usage
        prompt = prompt_characters // CHARACTERS_PER_TOKEN + 1
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=self.chunks_with_words,
            total_tokens=prompt + self.chunks_with_words,
        )
