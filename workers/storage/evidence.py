"""Everything that is stored, read once from end to end: what a drill compares with what its clients saw."""

from __future__ import annotations

import msgspec

from workers.storage.database import Database
from workers.storage.queries import load

QUERIES = load("evidence")


class StoredTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn. `ord` is its place among all turns, `remembered`: memory was told of it."""

    id: str
    session_id: str
    ord: int
    state: str
    attempts: int
    ended: bool
    fault: str
    remembered: bool


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message. `calls`: it asks for tools; `answers`: the id of the call that it answers."""

    id: str
    session_id: str
    turn_id: str
    ord: int
    role: str
    text: str
    calls: bool
    partial: bool
    choice: int
    answers: str


class StoredCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool of ours. `arguments` as the model wrote them."""

    id: str
    turn_id: str
    name: str
    arguments: str
    status: str


class StoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session, with how many messages memory counted into it."""

    id: str
    counted: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All of it: turns in the order of their arrival, messages in the order of each session."""

    turns: list[StoredTurn]
    messages: list[StoredMessage]
    calls: list[StoredCall]
    sessions: list[StoredSession]


async def gather_evidence(database: Database) -> Evidence:
    """Read it, in one transaction. For systems as large as a drill makes them. Raises psycopg errors."""
    async with database.transaction() as held:
        await held.run(QUERIES["take_time"], {})
        return Evidence(
            turns=await held.all(QUERIES["every_turn"], {}, StoredTurn),
            messages=await held.all(QUERIES["every_message"], {}, StoredMessage),
            calls=await held.all(QUERIES["every_call"], {}, StoredCall),
            sessions=await held.all(QUERIES["every_session"], {}, StoredSession),
        )
