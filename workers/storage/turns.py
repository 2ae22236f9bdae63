"""The turns in PostgreSQL: accepting, claiming, committing. Every write of an owner checks its epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas import codec
from schemas.faults import FaultRecord
from schemas.openai import Message, ToolCall
from schemas.turns import TurnState
from workers.storage.database import Database
from workers.storage.queries import load
from workers.storage.turn_rows import (
    AskedCall,
    Claimed,
    Ended,
    FailedRow,
    NewMessage,
    Partial,
    Reply,
    Stand,
    ToolsClaimed,
    TurnEnd,
)

QUERIES = load("turns")
read_message = msgspec.json.Decoder(Message).decode


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class _Text(msgspec.Struct):
    message: str


class _Session(msgspec.Struct):
    session_id: str


class _Count(msgspec.Struct):
    failures: int


class Turns:
    """The turns. Methods raise psycopg errors; a None or empty answer of an owner's commit means it is fenced."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def claim(self, turn_id: str, round: int, owner: str) -> Claimed | None:
        """Take hold of a round, where nobody alive holds it."""
        params = {"turn_id": turn_id, "round": round, "owner": owner}
        return await self.database.one(QUERIES["claim_generation"], params, Claimed)

    async def stand(self, turn_id: str) -> Stand | None:
        """Where a turn stands."""
        return await self.database.one(QUERIES["turn_state"], {"turn_id": turn_id}, Stand)

    async def end_of(self, turn_id: str) -> TurnEnd | None:
        """How a turn ended, or None where it has not."""
        return await self.database.one(QUERIES["turn_end"], {"turn_id": turn_id}, TurnEnd)

    async def steps(self, turn_id: str) -> list[Message]:
        """What earlier rounds of this turn said and called."""
        rows = await self.database.all(QUERIES["turn_steps"], {"turn_id": turn_id}, _Text)
        return [read_message(row.message) for row in rows]

    async def keep_partial(self, partials: Sequence[Partial]) -> None:
        """Store the text so far of several replies; those whose owner changed are left alone."""
        params = {
            "message_ids": [partial.message_id for partial in partials],
            "turn_ids": [partial.turn_id for partial in partials],
            "epochs": [partial.epoch for partial in partials],
            "contents": [partial.text for partial in partials],
        }
        await self.database.run(QUERIES["keep_partial"], params)

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
        """Commit a round that asks for tools: the message, and each call under its id."""
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

    async def start_call(self, id: str) -> bool:
        """Record that the effect is about to happen; False where it was started before."""
        return bool(await self.database.run(QUERIES["start_call"], {"id": id}))

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

    async def fail(self, turn_id: str, fault: FaultRecord) -> FailedRow | None:
        """End a turn from outside; None where it had ended."""
        params = {"turn_id": turn_id, "fault": _json(fault)}
        return await self.database.one(QUERIES["fail_turn"], params, FailedRow)

    async def count_failure(self, turn_id: str) -> int:
        """How many tries have failed for a reason of the turn's own, this one included; 0 for an unknown turn."""
        row = await self.database.one(QUERIES["count_failure"], {"turn_id": turn_id}, _Count)
        return row.failures if row else 0


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
