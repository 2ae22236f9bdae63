"""Rounds of turns in a worker's hands, and what models say, for tests of generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ops.runtime.bus import Bus
from schemas.context import ContextBundle
from schemas.ids import new_id
from schemas.openai import ChatRequest, Message, Usage
from schemas.replies import Delta, Frame, Gap, ReplyFold
from tests.workers.asked import BUNDLE, asked, chat
from tests.workers.sent import frames
from workers.engines.ai.chunks import Chunk, ChunkChoice, ChunkDelta, FunctionDelta, ToolCallDelta
from workers.generation.pace import Pace
from workers.generation.rounds import Round
from workers.generation.takeover import Prefix
from workers.generation.writer import ReplyWriter
from workers.storage.turn_rows import Claimed


def held(**changes: Any) -> Claimed:
    """A turn in a worker's hands."""
    fields: dict[str, Any] = {
        "turn_id": new_id(), "user_id": new_id(), "session_id": new_id(), "shard": 0, "epoch": 1, "attempts": 1,
        "round": 0, "arrival": b"", "bundle": b"", "shown_index": 0, "shown_length": 0, "shown_digest": 0,
        "usage": None, "taken_over": False, "created_at": 0.0,
    }  # fmt: skip
    return Claimed(**(fields | changes))


def round_of(
    claimed: Claimed | None = None,
    request: ChatRequest | None = None,
    bundle: ContextBundle = BUNDLE,
    steps: Sequence[Message] = (),
    prefix: Prefix | None = None,
) -> Round:
    """A round, unpacked."""
    claimed = claimed or held()
    arrival = asked(claimed.user_id, request or chat(), turn_id=claimed.turn_id)
    prefix = prefix or Prefix.of(claimed)
    return Round(claimed=claimed, arrival=arrival, bundle=bundle, steps=list(steps), prefix=prefix)


def writer_of(bus: Bus, round: Round, pace: Pace | None = None) -> ReplyWriter:
    """The writer of a round's reply."""
    return ReplyWriter(bus, round.claimed, pace or Pace(0), round.prefix)


def chunk(text: str | None = None, choice: int = 0, finish: str | None = None, **delta: Any) -> Chunk:
    """One event of a model's stream about one choice."""
    logprobs = delta.pop("logprobs", None)
    return Chunk(choices=[ChunkChoice(choice, ChunkDelta(content=text, **delta), finish, logprobs)])


def call_chunk(
    index: int = 0, id: str | None = None, name: str | None = None, arguments: str | None = None, choice: int = 0
) -> Chunk:
    """One event with a part of a tool call."""
    return chunk(choice=choice, tool_calls=[ToolCallDelta(index, id, FunctionDelta(name, arguments))])


def counted(prompt: int, completion: int) -> Chunk:
    """The last event, in which a server says what it counted."""
    return Chunk(usage=Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion))


async def frames_of(bus: Bus, claimed: Claimed) -> list[Frame]:
    """Every frame that the stream has of a reply."""
    return await frames(bus, claimed.turn_id, claimed.shard)


class Read(msgspec.Struct):
    """What a reader of the whole stream was shown."""

    fold: ReplyFold
    deltas: list[Delta]
    gaps: int = 0

    @property
    def words(self) -> str:
        return "".join(delta.text for delta in self.deltas)


async def read_out(bus: Bus, claimed: Claimed) -> Read:
    """Read a reply as any client does."""
    read = Read(ReplyFold(), [])
    for frame in await frames_of(bus, claimed):
        try:
            read.deltas += [event for event in read.fold.feed(frame) if isinstance(event, Delta)]
        except Gap:
            read.gaps += 1
    return read
