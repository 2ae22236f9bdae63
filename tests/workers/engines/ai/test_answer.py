"""Folding a stream into one answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from schemas.openai import FunctionCall, ToolCall, Usage
from workers.engines.ai.answer import ToolCallFold, whole
from workers.engines.ai.chunks import Chunk, ChunkChoice, ChunkDelta, FunctionDelta, ToolCallDelta


def part(index: int, id: str | None, name: str | None, arguments: str) -> ToolCallDelta:
    return ToolCallDelta(index=index, id=id, function=FunctionDelta(name=name, arguments=arguments))


def calls(*parts: ToolCallDelta) -> tuple[ToolCall, ...]:
    fold = ToolCallFold()
    for one in parts:
        fold.feed(one)
    return fold.calls()


def test_parts_of_parallel_calls_are_joined_by_their_index() -> None:
    assert calls(
        part(0, "a", "f", ""), part(1, "b", "g", "{"), part(0, None, None, "{}"), part(1, None, None, "}")
    ) == (
        ToolCall("a", FunctionCall("f", "{}")),
        ToolCall("b", FunctionCall("g", "{}")),
    )


def test_calls_that_all_claim_index_0_are_told_apart_by_id() -> None:
    assert [call.id for call in calls(part(0, "a", "f", "{}"), part(0, "b", "f", "{}"))] == ["a", "b"]


def test_an_id_repeated_with_each_part_is_still_one_call() -> None:
    assert calls(part(0, "a", "f", "{"), part(0, "a", None, "}")) == (ToolCall("a", FunctionCall("f", "{}")),)


async def test_choices_are_kept_apart_and_usage_is_the_last() -> None:
    async def stream() -> AsyncGenerator[list[Chunk], None]:
        yield [Chunk([ChunkChoice(index=1, delta=ChunkDelta(content="B"))])]
        yield [Chunk([ChunkChoice(delta=ChunkDelta(content="A", reasoning_content="r"))])]
        end = ChunkChoice(delta=ChunkDelta(content="a"), finish_reason="stop")
        yield [Chunk([end]), Chunk(usage=Usage(total_tokens=9))]

    answer = await whole(stream())
    assert [choice.text for choice in answer.choices] == ["Aa", "B"]
    assert (answer.text, answer.choices[0].reasoning, answer.choices[0].finish_reason) == ("Aa", "r", "stop")
    assert answer.usage == Usage(total_tokens=9)
