"""What operators see: one turn's life, and how the stages stand. Ids must be UUIDs. Raises psycopg errors."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from workers.storage.database import Database
from workers.storage.queries import load

QUERIES = load("operation")


class TurnLife(msgspec.Struct, frozen=True, kw_only=True):
    """A turn's row without its words."""

    id: str
    session_id: str
    shard: int
    state: str
    epoch: int
    round: int
    attempts: int
    failures: int
    sweeps: int
    owner: str | None
    owner_stage: str | None
    """None with an owner: a process whose lease was given up, or ended more than an hour ago."""
    lease_left: float | None
    """Seconds until the owner's lease ends; negative where it has ended."""
    model: str
    personality_id: str | None
    finish_reasons: list[str] | None
    usage: dict[str, Any] | None
    timings: dict[str, float]
    fault: dict[str, Any] | None
    shown_index: int
    shown_length: int
    created_at: datetime
    touched_at: datetime
    stopped_at: datetime | None
    finished_at: datetime | None
    now: datetime
    """PostgreSQL's clock, which all these times are of."""
    memory: str | None
    """The state of its memory write; None before memory was told of it."""
    queued_ahead: int
    running_ahead: str | None
    """The turn of its session that runs."""


class CallLife(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call without its arguments and its result."""

    round: int
    position: int
    name: str
    status: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class MessageCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages of one role a turn has stored, and how many of those are parts of a reply under way."""

    role: str
    messages: int
    partial: int


class StateCount(msgspec.Struct, frozen=True, kw_only=True):
    """Turns in a state that is no end. `oldest`: seconds since the first of them was accepted."""

    state: str
    turns: int
    oldest: float


class StageWorkers(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of a stage: alive, silent (their lease has ended), and the slots of the living ones."""

    stage: str
    alive: int
    silent: int
    slots: int


class Operation:
    """The questions of `python -m ops turn`, `lag` and `dead`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def turn(self, turn_id: str) -> TurnLife | None:
        """Where a turn stands, and how it came there."""
        return await self._database.one(QUERIES["turn_life"], {"turn_id": turn_id}, TurnLife)

    async def calls(self, turn_id: str) -> list[CallLife]:
        """Its tool calls, in the order they were asked for."""
        return await self._database.all(QUERIES["calls_of_turn"], {"turn_id": turn_id}, CallLife)

    async def messages(self, turn_id: str) -> list[MessageCount]:
        """What it has stored, counted by role."""
        return await self._database.all(QUERIES["messages_of_turn"], {"turn_id": turn_id}, MessageCount)

    async def standing(self) -> list[StateCount]:
        """How many turns wait or run."""
        return await self._database.all(QUERIES["turns_standing"], {}, StateCount)

    async def workers(self) -> list[StageWorkers]:
        """Which stages have processes."""
        return await self._database.all(QUERIES["workers_by_stage"], {}, StageWorkers)

    async def forgive(self, turn_id: str) -> None:
        """Count the turn's failures from nothing again."""
        await self._database.run(QUERIES["forgive"], {"turn_id": turn_id})
