"""Pure: from what was said in a round to what is committed of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas.ids import part_of
from schemas.openai import ToolCall, Usage, text_of
from schemas.turns import TurnState
from workers.generation.listening import Listening
from workers.generation.rounds import Round
from workers.generation.writer import ReplyWriter
from workers.storage.turn_rows import NewMessage, Reply


def tool_calls_of(round: Round, listening: Listening) -> list[ToolCall]:
    """The calls that are ours to run. Calls of tools the client declared go back to the client.

    A model that invents a name hears of it from tool_execution, unless the client brought tools: then it is the
    client's to judge. Where both kinds are called at once ours run first; the model asks for the others again.
    """
    claimed, request = round.claimed, round.arrival.request
    declared = {tool.function.name for tool in request.tools or ()}
    ours = {tool.function.name for tool in round.bundle.tools}
    calls = listening.calls(claimed.turn_id, claimed.round)
    return [call for call in calls if call.function.name in ours or not declared]


def client_calls(round: Round, listening: Listening) -> dict[int, list[ToolCall]]:
    """The calls that are the client's to make, by choice. A client that declared no tools has none."""
    claimed, request = round.claimed, round.arrival.request
    ours = {tool.function.name for tool in round.bundle.tools}
    return {
        choice: [
            call
            for call in listening.calls(claimed.turn_id, claimed.round, choice)
            if request.tools and call.function.name not in ours
        ]
        for choice in range(request.n or 1)
    }


def reply_so_far(round: Round, writer: ReplyWriter, listening: Listening) -> Reply:
    """The measure of all that was shown, and what it cost: earlier rounds included."""
    return Reply(
        said=writer.said,
        shown_index=writer.index,
        shown_length=writer.length,
        shown_digest=writer.digest,
        usage=_usage(round, listening),
        timings=_timings(round, writer),
    )


def _usage(round: Round, listening: Listening) -> Usage:
    claimed, bundle, before = round.claimed, round.bundle, listening.before
    asked = sum(len(text_of(message.content)) for message in (*bundle.history, *bundle.incoming, *round.steps))
    usage = listening.usage_or_estimate(asked + sum(map(len, bundle.system)))
    if before is not None and before.said:
        # The server counted the words it was given as prompt; to the user they are part of the reply.
        moved = min(before.given, usage.prompt_tokens) if listening.usage else 0
        said = before.tokens - min(listening.swallowed, usage.completion_tokens)
        usage = usage.plus(Usage(prompt_tokens=-moved, completion_tokens=said, total_tokens=said - moved))
    return msgspec.convert(claimed.usage, Usage).plus(usage) if claimed.usage else usage


def _timings(round: Round, writer: ReplyWriter) -> dict[str, float]:
    now = time.time()
    since = round.arrival.asked_at
    timings = {"finished_ms": round_ms(now - since)}
    # Whoever showed the turn's first word may be dead: then the stream knows when. A round before has committed it.
    first = round.prefix.first_said_at if round.prefix.said else writer.first_said_at
    if first is not None and round.claimed.shown_index == 0:
        timings["first_token_ms"] = round_ms(first - since)
    return timings


def round_ms(seconds: float) -> float:
    """Milliseconds with one decimal, never negative (two machines' clocks may differ)."""
    return max(0.0, round(seconds * 1000, 1))


def assistant_messages(
    round: Round,
    writer: ReplyWriter,
    listening: Listening,
    calls: Mapping[int, Sequence[ToolCall]],
    *,
    state: TurnState = TurnState.COMPLETED,
) -> list[NewMessage]:
    """One message a choice, in the words the reader saw."""
    claimed = round.claimed
    return [
        NewMessage(
            id=part_of(claimed.turn_id, "reply", claimed.round, choice),
            role="assistant",
            content=writer.text(choice) or (None if calls.get(choice) else ""),
            metadata=_metadata(round, writer, listening, choice, calls.get(choice, ()), state),
        )
        for choice in range(round.arrival.request.n or 1)
    ]


def _metadata(
    round: Round, writer: ReplyWriter, listening: Listening, choice: int, calls: Sequence[ToolCall], state: TurnState
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "model": round.bundle.choice.model,
        "finish_reason": listening.finish_reason(choice, calls),
        "first_index": round.claimed.shown_index + 1,
    }
    if choice:
        metadata["choice"] = choice
    if round.bundle.personality_version:
        metadata["personality_version"] = round.bundle.personality_version
    if reasoning := "".join(delta.reasoning for delta in writer.said if delta.choice == choice):
        metadata["reasoning"] = reasoning
    if refusal := "".join(delta.refusal for delta in writer.said if delta.choice == choice):
        metadata["refusal"] = refusal
    if calls:
        metadata["tool_calls"] = msgspec.to_builtins(list(calls))
    if state is not TurnState.COMPLETED:
        metadata["state"] = state.value
    return metadata


def tools_message(
    round: Round, writer: ReplyWriter, calls: Sequence[ToolCall]
) -> tuple[NewMessage, list[tuple[str, ToolCall]]]:
    """The message that asks for tools of ours, and each call under its deterministic id."""
    claimed = round.claimed
    message = NewMessage(
        id=part_of(claimed.turn_id, "reply", claimed.round, 0),
        role="assistant",
        content=writer.text() or None,
        metadata={"model": round.bundle.choice.model, "tool_calls": msgspec.to_builtins(list(calls))},
    )
    rows = [(part_of(claimed.turn_id, "call", claimed.round, position), call) for position, call in enumerate(calls, 1)]
    return message, rows
