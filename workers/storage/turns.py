"""The turns in PostgreSQL: accepting, claiming, committing. Every write of an owner checks its epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas import codec
from schemas.faults import FaultRecord
from schemas.openai import Message, ToolCall
from schemas.replies import Delta
from schemas.turns import TurnRequested, TurnState
from workers.storage.database import Connection, Database
from workers.storage.queries import load
from workers.storage.turn_rows import (
    AskedCall,
    CallStart,
    Claimed,
    Ended,
    FailedRow,
    NewMessage,
    Partial,
    Reply,
    Stand,
    StoppedRow,
    ToolsClaimed,
    TurnEnd,
)

QUERIES = load("turns")
read_message = msgspec.json.Decoder(Message).decode

STOPPED_BEFORE = "Not called: the user stopped this turn before."
"""What the model is told of a call that a stop has forestalled."""


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class _Text(msgspec.Struct):
    message: str


class _Owned(msgspec.Struct):
    turn_id: str


class _Session(msgspec.Struct):
    session_id: str


class _Turn(msgspec.Struct):
    turn_id: str


class _Count(msgspec.Struct):
    failures: int


class _Claim(msgspec.Struct):
    turn_id: str
    epoch: int


class _Request(msgspec.Struct):
    turn_id: str
    arrival: bytes


class Turns:
    """The turns. Methods raise psycopg errors; a None or empty answer of an owner's commit means it is fenced."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def claim(self, turn_id: str, round: int, owner: str) -> Claimed | None:
        """Take hold of a round, where nobody alive holds it."""
        params = {"turn_id": turn_id, "round": round, "owner": owner}
        return await self.database.one(QUERIES["claim_generation"], params, Claimed)

    async def let_go(self, held: Sequence[tuple[str, int]]) -> None:
        """Give back turns that their owner leaves unfinished, each by its id and the claim's epoch."""
        params = {"turn_ids": [turn_id for turn_id, _ in held], "epochs": [epoch for _, epoch in held]}
        await self.database.run(QUERIES["let_go"], params)

    async def lost(self, held: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Which of these claims, each a turn's id and the claim's epoch, are others' by now."""
        params = {"turn_ids": [turn_id for turn_id, _ in held], "epochs": [epoch for _, epoch in held]}
        rows = await self.database.all(QUERIES["lost_claims"], params, _Claim)
        return [(row.turn_id, row.epoch) for row in rows]

    async def stand(self, turn_id: str) -> Stand | None:
        """Where a turn stands."""
        return await self.database.one(QUERIES["turn_state"], {"turn_id": turn_id}, Stand)

    async def end_of(self, turn_id: str) -> TurnEnd | None:
        """How a turn ended, or None where it has not."""
        return await self.database.one(QUERIES["turn_end"], {"turn_id": turn_id}, TurnEnd)

    async def ended_by(self, claimed: Claimed) -> Ended | None:
        """Whether this claim's owner has ended the turn already: any other's end raises the epoch."""
        end = await self.end_of(claimed.turn_id)
        return Ended(session_id=end.session_id) if end is not None and end.epoch == claimed.epoch else None

    async def tools_finished_by(self, claimed: ToolsClaimed) -> bool:
        """Whether this claim's owner has committed the round's results already."""
        stand = await self.stand(claimed.turn_id)
        return stand is not None and (stand.epoch, stand.round) == (claimed.epoch, claimed.round + 1)

    async def steps(self, turn_id: str) -> list[Message]:
        """What earlier rounds of this turn said and called."""
        rows = await self.database.all(QUERIES["turn_steps"], {"turn_id": turn_id}, _Text)
        return [read_message(row.message) for row in rows]

    async def keep_partial(self, partials: Sequence[Partial]) -> set[str]:
        """Store the text so far of several replies. Says which turns their owners still own; others are left alone."""
        params = {
            "message_ids": [partial.message_id for partial in partials],
            "turn_ids": [partial.turn_id for partial in partials],
            "epochs": [partial.epoch for partial in partials],
            "contents": [partial.text for partial in partials],
        }
        return {row.turn_id for row in await self.database.all(QUERIES["keep_partial"], params, _Owned)}

    async def kept_partial(self, message_id: str) -> str | None:
        """The text so far that was last kept of a reply, or None."""
        row = await self.database.one(QUERIES["kept_partial"], {"id": message_id}, _Text)
        return row.message if row else None

    async def finish(
        self,
        claimed: Claimed,
        state: TurnState,
        reply: Reply,
        messages: Sequence[NewMessage],
        *,
        finish_reasons: Sequence[str] = (),
        fault: FaultRecord | None = None,
    ) -> Ended | None:
        """Commit the turn's end and its messages."""
        params = _reply_params(claimed, reply) | {
            "state": state.value,
            "finish_reasons": list(finish_reasons),
            "fault": _json(fault) if fault else None,
            "message_ids": [message.id for message in messages],
            "contents": [_json(message.content) for message in messages],
            "metadata": [_json(message.metadata) for message in messages],
        }
        return await self.database.one(QUERIES["finish_turn"], params, Ended)

    async def call_tools(
        self, claimed: Claimed, reply: Reply, message: NewMessage, calls: Sequence[tuple[str, ToolCall]]
    ) -> bool:
        """Commit a round that asks for tools: what was said, and each call under its id. False also if stopped."""
        params = _reply_params(claimed, reply) | {
            "message_id": message.id,
            "content": _json(message.content),
            "metadata": _json(message.metadata),
            "ids": [id for id, _ in calls],
            "call_ids": [call.id for _, call in calls],
            "names": [call.function.name for _, call in calls],
            "arguments": [call.function.arguments for _, call in calls],
        }
        return await self.database.one(QUERIES["call_tools"], params, _Session) is not None

    async def claim_tools(self, turn_id: str, round: int, owner: str) -> ToolsClaimed | None:
        """Take hold of a round of tool calls, where nobody alive holds it."""
        params = {"turn_id": turn_id, "round": round, "owner": owner}
        return await self.database.one(QUERIES["claim_tools"], params, ToolsClaimed)

    async def asked_calls(self, turn_id: str, round: int) -> list[AskedCall]:
        """A round's calls in the model's order."""
        return await self.database.all(QUERIES["asked_calls"], {"turn_id": turn_id, "round": round}, AskedCall)

    async def start_call(self, claimed: ToolsClaimed, id: str) -> CallStart | None:
        """Record that the effect is about to happen, unless the turn was stopped. None for an owner no more."""
        params = {"turn_id": claimed.turn_id, "epoch": claimed.epoch, "id": id}
        return await self.database.one(QUERIES["start_call"], params, CallStart)

    async def end_call(self, id: str, status: str, result: str) -> None:
        """Record what the call answered."""
        await self.database.run(QUERIES["end_call"], {"id": id, "status": status, "result": result})

    async def finish_tools(self, claimed: ToolsClaimed, results: Sequence[tuple[str, str, str]]) -> bool:
        """Commit a round's results, each (message id, call id, content), and open the next round."""
        params = {
            "turn_id": claimed.turn_id,
            "epoch": claimed.epoch,
            "message_ids": [id for id, _, _ in results],
            "call_ids": [call_id for _, call_id, _ in results],
            "contents": [content for _, _, content in results],
        }
        return await self.database.one(QUERIES["finish_tools"], params, _Session) is not None

    async def stop(self, user_id: str, turn_ids: Sequence[str], held: Connection | None = None) -> list[StoppedRow]:
        """Stop a user's turns, on a connection that is held where that is given. Those that had ended are left out."""
        on = held or self.database
        asked = await on.all(QUERIES["requests_of"], {"user_id": user_id, "turn_ids": list(turn_ids)}, _Request)
        params = {
            "user_id": user_id,
            "turn_ids": [row.turn_id for row in asked],
            "choices": [_choices(row.arrival) for row in asked],
            "denied": STOPPED_BEFORE,
        }
        return await on.all(QUERIES["stop_turns"], params, StoppedRow)

    async def was_stopped(self, user_id: str, turn_id: str) -> bool:
        """Whether this is a turn of the user's that a stop has ended."""
        params = {"user_id": user_id, "turn_id": turn_id}
        return await self.database.one(QUERIES["stopped_turn"], params, _Turn) is not None

    async def unanswered(self, held: Connection, session_id: str) -> list[str]:
        """A session's turns that have not ended, oldest first."""
        rows = await held.all(QUERIES["unanswered_turns"], {"session_id": session_id}, _Turn)
        return [row.turn_id for row in rows]

    async def fail(self, turn_id: str, fault: FaultRecord) -> FailedRow | None:
        """End a turn from outside; None where it had ended."""
        params = {"turn_id": turn_id, "fault": _json(fault)}
        return await self.database.one(QUERIES["fail_turn"], params, FailedRow)

    async def keep_shown(
        self, turn_id: str, end: TurnEnd, said: Sequence[Delta], messages: Sequence[NewMessage]
    ) -> None:
        """Store what readers were shown of a failed turn, up to `end`'s measure, where it is not stored."""
        params = {
            "turn_id": turn_id,
            "epoch": end.epoch,
            "said": codec.encode(said),
            "shown_index": end.shown_index,
            "shown_length": end.shown_length,
            "shown_digest": end.shown_digest,
            "message_ids": [message.id for message in messages],
            "contents": [_json(message.content) for message in messages],
            "metadata": [_json(message.metadata) for message in messages],
        }
        await self.database.run(QUERIES["keep_shown"], params)

    async def count_failure(self, turn_id: str) -> int:
        """How many tries have failed for a reason of the turn's own, this one included; 0 for an unknown turn."""
        row = await self.database.one(QUERIES["count_failure"], {"turn_id": turn_id}, _Count)
        return row.failures if row else 0


def _choices(arrival: bytes) -> int:
    """How many answers a request asks for. One that this version cannot read has one: a stop must not fail over it."""
    try:
        return codec.decode(arrival, TurnRequested).request.n or 1
    except msgspec.DecodeError:
        return 1


def _reply_params(claimed: Claimed, reply: Reply) -> dict[str, Any]:
    return {
        "turn_id": claimed.turn_id,
        "epoch": claimed.epoch,
        "said": codec.encode(reply.said),
        "shown_index": reply.shown_index,
        "shown_length": reply.shown_length,
        "shown_digest": reply.shown_digest,
        "usage": _json(reply.usage),
        "timings": _json(reply.timings),
    }
