"""Turns, as their owner may see them. What moves a turn is in `turns.py`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from schemas.faults import FaultRecord
from schemas.openai import Usage
from schemas.records import Turn
from workers.storage.database import Database
from workers.storage.queries import load
from workers.storage.times import rfc3339, rfc3339_or_none

QUERIES = load("turns_read")


class RepliedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """What a stored reply says of its turn. `created` in Unix seconds."""

    turn_id: str
    session_id: str
    personality_id: str | None
    model: str
    shard: int
    state: str
    created: int
    finish_reasons: list[str] | None
    usage: Usage | None
    fault: FaultRecord | None


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the assistant: `content` as stored, `metadata` with choice, reasoning and tool calls."""

    content: Any
    metadata: dict[str, Any]


class TurnsRead:
    """Every question names its owner: another user's turn is not there. Ids must be UUIDs. Raises psycopg errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str, turn_id: str) -> Turn | None:
        """The turn, whether or not its session is still shown."""
        return await self._database.one(QUERIES["get_turn"], {"user_id": user_id, "turn_id": turn_id}, _turn)

    async def replied(self, user_id: str, turn_id: str) -> RepliedTurn | None:
        """The turn of a stored reply; None as well where its session was deleted."""
        return await self._database.one(QUERIES["get_replied_turn"], {"user_id": user_id, "turn_id": turn_id}, _replied)

    async def said(self, turn_id: str) -> list[Said]:
        """What the assistant said in a turn, in order. Whose turn it is was asked before."""
        return await self._database.all(QUERIES["list_replies"], {"turn_id": turn_id}, Said)

    async def ping(self) -> None:
        """Ask the database for a sign of life."""
        await self._database.run(QUERIES["ping"], {})


def _turn(*, created_at: datetime, finished_at: datetime | None, usage: Any, fault: Any, **columns: Any) -> Turn:
    return Turn(
        created_at=rfc3339(created_at),
        finished_at=rfc3339_or_none(finished_at),
        usage=_usage(usage),
        error=_fault(fault),
        **columns,
    )


def _replied(*, usage: Any, fault: Any, **columns: Any) -> RepliedTurn:
    return RepliedTurn(usage=_usage(usage), fault=_fault(fault), **columns)


def _usage(value: Any) -> Usage | None:
    return msgspec.convert(value, Usage | None)


def _fault(value: Any) -> FaultRecord | None:
    return msgspec.convert(value, FaultRecord | None)
