"""Builds the reply of an ended turn from what was stored of it: the frames that a reader folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from schemas import codec
from schemas.faults import EngineInternal
from schemas.openai import Part, ToolCall, Usage, text_of
from schemas.records import StoredReply
from schemas.replies import Delta, End, Failed, Finished, Frame, Start, measure
from schemas.turns import ENDS, TurnState
from workers.storage.turns_read import RepliedTurn, Said

EPOCH = 1
ASKED_THE_CLIENT = "tool_calls"
FINISHED = frozenset({TurnState.COMPLETED, TurnState.CANCELLED})
"""A cancelled turn's reply ends in good order: its text is kept, and marked as stopped."""


def stored_reply(turn: RepliedTurn, said: Sequence[Said]) -> StoredReply:
    """The reply as frames: one delta for each message that shows something, dense from 1, then the end.

    A turn that has not ended gets its start alone: the stream has its words, under the indexes they were shown with.
    """
    return StoredReply(
        turn_id=turn.turn_id,
        session_id=turn.session_id,
        personality_id=turn.personality_id,
        model=turn.model,
        shard=turn.shard,
        created=turn.created,
        state=turn.state,
        frames=[codec.encode(frame) for frame in _frames(turn, said)],
    )


def _frames(turn: RepliedTurn, said: Sequence[Said]) -> Iterator[Frame]:
    yield Start(EPOCH, 0)
    if turn.state not in ENDS:
        return
    index = length = digest = 0
    for delta in _deltas(turn, said):
        index = delta.index
        length, digest = measure(delta, length, digest)
        yield delta
    yield _end(turn, index, length, digest)


def _deltas(turn: RepliedTurn, said: Sequence[Said]) -> Iterator[Delta]:
    last_of_choice = {_choice(message): position for position, message in enumerate(said)}
    index = 0
    for position, message in enumerate(said):
        is_last = last_of_choice[_choice(message)] == position
        calls = _client_calls(turn, message) if is_last else None
        text, reasoning, refusal = _words(message)
        if text or reasoning or refusal or calls:
            index += 1
            yield Delta(EPOCH, index, text, _choice(message), reasoning, calls, refusal)


def _words(message: Said) -> tuple[str, str, str]:
    reasoning: str = message.metadata.get("reasoning") or ""
    refusal: str = message.metadata.get("refusal") or ""
    return text_of(msgspec.convert(message.content, str | list[Part] | None)), reasoning, refusal


def _choice(message: Said) -> int:
    return int(message.metadata.get("choice") or 0)


def _client_calls(turn: RepliedTurn, message: Said) -> list[ToolCall] | None:
    """The calls that the client is to make. Calls of tools of ours are never shown to it."""
    reasons = turn.finish_reasons or []
    choice = _choice(message)
    if choice >= len(reasons) or reasons[choice] != ASKED_THE_CLIENT:
        return None
    return msgspec.convert(message.metadata.get("tool_calls"), list[ToolCall] | None)


def _end(turn: RepliedTurn, index: int, length: int, digest: int) -> End:
    if turn.state not in FINISHED:
        return Failed(EPOCH, index, turn.fault or EngineInternal().record, turn.state)
    return Finished(
        EPOCH,
        index,
        finish_reasons=turn.finish_reasons or ["stop"],
        usage=turn.usage or Usage(),
        length=length,
        digest=digest,
        state=turn.state,
        stopped=turn.state == TurnState.CANCELLED,
    )
