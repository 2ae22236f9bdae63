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
from workers.storage.turn_rows import TurnEnd

QUERIES = load("turns_read")


class RepliedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn and its stored reply. `created` in Unix seconds; `reply`: msgpack lists of deltas, one a round."""

    turn_id: str
    personality_id: str | None
    model: str
    created: int
    ignored_messages: int
    reply: list[bytes]
    end: TurnEnd


class _Now(msgspec.Struct):
    now: float


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

    async def ping(self) -> float:
        """Ask the database for a sign of life: its time, in Unix seconds."""
        row = await self._database.one(QUERIES["ping"], {}, _Now)
        assert row is not None
        return row.now


def _turn(*, created_at: datetime, finished_at: datetime | None, usage: Any, fault: Any, **columns: Any) -> Turn:
    return Turn(
        created_at=rfc3339(created_at),
        finished_at=rfc3339_or_none(finished_at),
        usage=_usage(usage),
        error=_fault(fault),
        **columns,
    )


def _replied(
    *,
    turn_id: str,
    personality_id: str | None,
    model: str,
    created: int,
    ignored_messages: int,
    reply: list[bytes],
    **end: Any,
) -> RepliedTurn:
    return RepliedTurn(
        turn_id=turn_id,
        personality_id=personality_id,
        model=model,
        created=created,
        ignored_messages=ignored_messages,
        reply=reply,
        end=TurnEnd(**end),
    )


def _usage(value: Any) -> Usage | None:
    return msgspec.convert(value, Usage | None)


def _fault(value: Any) -> FaultRecord | None:
    return msgspec.convert(value, FaultRecord | None)
