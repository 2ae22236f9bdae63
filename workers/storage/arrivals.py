"""Turns on their way in: accepting them, letting those that wait go on, and preparing them. Raises psycopg errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from schemas import codec
from schemas.context import ContextBundle
from schemas.openai import Message
from schemas.turns import TurnRequested, TurnState
from workers.storage.database import Connection, Database
from workers.storage.queries import load
from workers.storage.turn_rows import Known, LockedSession, NewTurn, Placed, Ready, ReleasedRow
from workers.storage.turnstiles import Turnstiles

QUERIES = load("arrivals")
USER_LOCK = 0x75736572
"""The first half of the advisory lock under which one user's turns are counted."""
HISTORY_BYTES = 8 << 20
"""Most bytes of a history that are read back: messages may hold images."""
read_message = msgspec.json.Decoder(Message).decode


class _Created(msgspec.Struct):
    created: int


class _Text(msgspec.Struct):
    message: str


class _Busy(msgspec.Struct):
    busy: bool


class _Running(msgspec.Struct):
    running: int


class _Queue(msgspec.Struct):
    user_id: str
    waits: bool
    stands: bool
    running: int


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _turn_params(turn: NewTurn) -> dict[str, Any]:
    arrival = turn.arrival
    return {
        "session_id": turn.session_id,
        "shard": turn.shard,
        "state": turn.state.value,
        "expires_at": arrival.expires_at,
        "model": arrival.request.model,
        "personality_id": turn.personality_id,
        **_tries(arrival),
        "question": arrival.question,
        "arrival": codec.encode(arrival),
        "bundle": codec.encode(turn.bundle) if turn.bundle else None,
        "ignored_messages": turn.ignored_messages,
        "message_ids": [message.id for message in turn.messages],
        "roles": [message.role for message in turn.messages],
        "contents": [_json(message.content) for message in turn.messages],
        "metadata": [_json(message.metadata) for message in turn.messages],
    }


def _tries(arrival: TurnRequested) -> dict[str, Any]:
    """What other tries of the same request are known by."""
    return {
        "turn_id": arrival.turn_id,
        "user_id": arrival.user_id,
        "fingerprint": arrival.fingerprint,
        "first_try": not arrival.keyed and not arrival.retried,
        "retried": not arrival.keyed and arrival.retried,
        "failed_too": arrival.request.cozy is not None and arrival.request.cozy.session_id is not None,
    }


def _waiting(turn: NewTurn) -> NewTurn:
    return msgspec.structs.replace(turn, state=TurnState.QUEUED, bundle=None)


async def _place(held: Connection | Database, turn: NewTurn, *, alone: bool) -> Placed | None:
    row = await held.one(QUERIES["place_turn"], _turn_params(turn) | {"alone": alone}, _Created)
    return Placed(created=row.created, state=turn.state) if row else None


class Arrivals:
    """The door of the table. Every method may be repeated: what is there already is found, not made again.

    `concurrent_turns`: how many turns of one user may run at once, None for any number.
    """

    def __init__(self, database: Database, concurrent_turns: int | None = None) -> None:
        self.database, self.concurrent_turns = database, concurrent_turns
        self._turnstiles = Turnstiles()

    async def open(self, turn: NewTurn) -> Placed | None:
        """Accept a turn that stands alone; it waits where its user has no room. None: it was there, or is too late."""
        user_id = turn.arrival.user_id
        if self.concurrent_turns is None:
            return await self._open(self.database, turn)
        if not await self._has_room(self.database, user_id):
            # Seen without the lock: a burst that has to wait anyway must not stand in line for it.
            return await self._open(self.database, _waiting(turn))
        async with self._turnstiles.of(user_id), self.database.transaction() as held:
            room = await self._room_under_lock(held, user_id)
            return await self._open(held, turn if room else _waiting(turn))

    async def _open(self, held: Connection | Database, turn: NewTurn) -> Placed | None:
        return await _place(held, turn, alone=True)

    async def add(self, held: Connection, turn: NewTurn) -> Placed | None:
        """Accept a turn in a session locked on this connection; it waits where its user has no room."""
        ready = turn.state is not TurnState.QUEUED
        if ready and self.concurrent_turns and not await self._room_under_lock(held, turn.arrival.user_id):
            turn = _waiting(turn)
        return await _place(held, turn, alone=False)

    async def _room_under_lock(self, held: Connection, user_id: str) -> bool:
        """Whether one more turn of the user may run. Until the transaction ends nobody else counts them."""
        await held.run(QUERIES["lock_user"], {"lock": USER_LOCK, "user_id": user_id})
        return await self._has_room(held, user_id)

    async def _has_room(self, held: Connection | Database, user_id: str) -> bool:
        row = await held.one(QUERIES["running_turns"], {"user_id": user_id}, _Running)
        return row is not None and row.running < (self.concurrent_turns or 0)

    @asynccontextmanager
    async def beside_no_other(self, session_id: str, user_id: str) -> AsyncIterator[Connection]:
        """A transaction in which no other of this process waits for the same session, or limited user."""
        name = user_id if self.concurrent_turns else session_id
        async with self._turnstiles.of(name), self.database.transaction() as held:
            yield held

    async def lock_session(self, held: Connection, session_id: str, user_id: str) -> LockedSession | None:
        """Hold the session, or None where the caller has none of that id."""
        params = {"session_id": session_id, "user_id": user_id}
        return await held.one(QUERIES["lock_session"], params, LockedSession)

    async def busy(self, held: Connection, session_id: str) -> bool:
        """Whether a turn of the locked session is still to be answered."""
        row = await held.one(QUERIES["session_busy"], {"session_id": session_id}, _Busy)
        return row is not None and row.busy

    async def find(self, turn_id: str, held: Connection | None = None) -> Known | None:
        """A turn by id; whoever holds a connection asks on it, or waits for a second one that never comes."""
        return await (held or self.database).one(QUERIES["find_turn"], {"turn_id": turn_id}, Known)

    async def find_same(self, arrival: TurnRequested, held: Connection | None = None) -> Known | None:
        """Another try of a request that has no key: for a retry any of the last minute, for a first try a retry that
        overtook it."""
        query = QUERIES["find_retried_turn" if arrival.retried else "find_retry"]
        return await (held or self.database).one(query, _tries(arrival), Known)

    async def refuse(self, held: Connection, arrival: TurnRequested) -> None:
        """Remember that this question was refused for how things stood: no copy of it is accepted afterwards."""
        await held.run(QUERIES["refuse_question"], {"question": arrival.question})

    async def history(self, held: Connection | Database, session_id: str, turn_id: str, limit: int) -> list[Message]:
        """The session's newest messages before this turn's own, oldest first, within HISTORY_BYTES."""
        params = {"session_id": session_id, "turn_id": turn_id, "limit": limit, "max_bytes": HISTORY_BYTES}
        return [read_message(row.message) for row in await held.all(QUERIES["recent_messages"], params, _Text)]

    async def released(self, turn_id: str) -> ReleasedRow | None:
        """A released turn that still waits to be prepared."""
        return await self.database.one(QUERIES["released_turn"], {"turn_id": turn_id}, ReleasedRow)

    async def prepare(self, turn_id: str, bundle: ContextBundle) -> bool:
        """Store the bundle; False where the turn has moved on."""
        return bool(
            await self.database.run(QUERIES["prepare_turn"], {"turn_id": turn_id, "bundle": codec.encode(bundle)})
        )

    async def release(self, session_id: str) -> list[Ready]:
        """Let the session's next waiting turn run, if none is running.

        Where users have a limit, its user's oldest waiting turns in free sessions instead, as many as have room. Those
        that were let run before are named until they are prepared: whoever did it may have died before it could tell.
        """
        if self.concurrent_turns is None:
            return await self.database.all(QUERIES["release_in_session"], {"session_id": session_id}, Ready)
        queue = await self.database.one(QUERIES["queue_behind"], {"session_id": session_id}, _Queue)
        if queue is None or not (queue.stands or (queue.waits and queue.running < self.concurrent_turns)):
            return []  # whoever runs now sees at its end what waits by now
        params = {"user_id": queue.user_id, "limit": self.concurrent_turns}
        async with self._turnstiles.of(queue.user_id), self.database.transaction() as held:
            await held.run(QUERIES["lock_user"], {"lock": USER_LOCK, "user_id": queue.user_id})
            return await held.all(QUERIES["release_of_user"], params, Ready)
