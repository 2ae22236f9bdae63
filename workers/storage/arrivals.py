"""Turns on their way in: accepting them, letting those that wait go on, and preparing them. Raises psycopg errors."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas import codec
from schemas.context import ContextBundle
from schemas.openai import Message
from workers.storage.database import Connection, Database
from workers.storage.queries import load
from workers.storage.turn_rows import Known, LockedSession, NewTurn, Ready, ReleasedRow

QUERIES = load("arrivals")
read_message = msgspec.json.Decoder(Message).decode


class _Created(msgspec.Struct):
    created: int


class _Text(msgspec.Struct):
    message: str


class _Busy(msgspec.Struct):
    busy: bool


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _turn_params(turn: NewTurn) -> dict[str, Any]:
    arrival = turn.arrival
    return {
        "turn_id": arrival.turn_id,
        "user_id": arrival.user_id,
        "session_id": turn.session_id,
        "shard": turn.shard,
        "state": turn.state.value,
        "model": arrival.request.model,
        "personality_id": turn.personality_id,
        "fingerprint": arrival.fingerprint,
        "arrival": codec.encode(arrival),
        "bundle": codec.encode(turn.bundle) if turn.bundle else None,
        "ignored_messages": turn.ignored_messages,
        "message_ids": [message.id for message in turn.messages],
        "roles": [message.role for message in turn.messages],
        "contents": [_json(message.content) for message in turn.messages],
        "metadata": [_json(message.metadata) for message in turn.messages],
    }


class Arrivals:
    """The door of the table. Every method may be repeated: what is there already is found, not made again."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def open(self, turn: NewTurn) -> int | None:
        """Accept a turn that stands alone; its creation in Unix seconds, or None where it was there already."""
        row = await self.database.one(QUERIES["open_turn"], _turn_params(turn), _Created)
        return row.created if row else None

    async def add(self, held: Connection, turn: NewTurn) -> int | None:
        """Accept a turn in a session locked on this connection."""
        row = await held.one(QUERIES["add_turn"], _turn_params(turn), _Created)
        return row.created if row else None

    async def lock_session(self, held: Connection, session_id: str, user_id: str) -> LockedSession | None:
        """Hold the session, or None where the caller has none of that id."""
        params = {"session_id": session_id, "user_id": user_id}
        return await held.one(QUERIES["lock_session"], params, LockedSession)

    async def busy(self, held: Connection, session_id: str) -> bool:
        """Whether a turn of the locked session is still to be answered."""
        row = await held.one(QUERIES["session_busy"], {"session_id": session_id}, _Busy)
        return row is not None and row.busy

    async def find(self, turn_id: str) -> Known | None:
        """A turn by id."""
        return await self.database.one(QUERIES["find_turn"], {"turn_id": turn_id}, Known)

    async def find_retried(self, user_id: str, fingerprint: str) -> Known | None:
        """The caller's newest turn of the last minute with this body."""
        params = {"user_id": user_id, "fingerprint": fingerprint}
        return await self.database.one(QUERIES["find_retried_turn"], params, Known)

    async def history(self, held: Connection | Database, session_id: str, turn_id: str, limit: int) -> list[Message]:
        """The session's newest messages before this turn's own, oldest first."""
        params = {"session_id": session_id, "turn_id": turn_id, "limit": limit}
        return [read_message(row.message) for row in await held.all(QUERIES["recent_messages"], params, _Text)]

    async def released(self, turn_id: str) -> ReleasedRow | None:
        """A released turn that still waits to be prepared."""
        return await self.database.one(QUERIES["released_turn"], {"turn_id": turn_id}, ReleasedRow)

    async def prepare(self, turn_id: str, bundle: ContextBundle) -> bool:
        """Store the bundle; False where the turn has moved on."""
        return bool(
            await self.database.run(QUERIES["prepare_turn"], {"turn_id": turn_id, "bundle": codec.encode(bundle)})
        )

    async def release_next(self, session_id: str) -> Ready | None:
        """Let the session's next waiting turn run, if none is running."""
        return await self.database.one(QUERIES["release_next"], {"session_id": session_id}, Ready)
