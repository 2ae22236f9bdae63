"""Rows that tests of the shelves begin with."""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any

from psycopg.types.json import Jsonb

from schemas.ids import new_id
from workers.storage.database import Database

PLACES = count(1)
"""Messages come in the order they are added in."""


def key_hash_of(name: str) -> str:
    """A key's SHA-256, as stored."""
    return hashlib.sha256(name.encode()).hexdigest()


async def _insert(database: Database, table: str, row: dict[str, Any]) -> str:
    columns = ", ".join(row)
    places = ", ".join(f"%({column})s" for column in row)
    values = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in row.items()}
    await database.run(f"INSERT INTO {table} ({columns}) VALUES ({places})", values)
    return str(row["id"])


async def add_user(database: Database, name: str = "", **columns: Any) -> str:
    """A user's id."""
    return await _insert(database, "users", {"id": new_id(), "name": name or new_id()} | columns)


async def add_key(database: Database, user_id: str, key_hash: str, **columns: Any) -> str:
    """A key's id."""
    row = {"id": new_id(), "user_id": user_id, "key_hash": key_hash, "prefix": "sk-cozy-abc"}
    return await _insert(database, "api_keys", row | columns)


async def add_session(database: Database, user_id: str, **columns: Any) -> str:
    """A session's id."""
    return await _insert(
        database, "sessions", {"id": new_id(), "user_id": user_id, "personality_id": "default"} | columns
    )


async def add_message(database: Database, session_id: str, content: Any = "hi", **columns: Any) -> str:
    """A message's id."""
    row = {"id": new_id(), "session_id": session_id, "ord": next(PLACES), "role": "user", "content": Jsonb(content)}
    return await _insert(database, "messages", row | columns)


async def add_turn(database: Database, user_id: str, session_id: str, **columns: Any) -> str:
    """A turn's id."""
    row = {"id": new_id(), "user_id": user_id, "session_id": session_id, "shard": 0, "state": "completed"}
    return await _insert(database, "turns", row | {"model": "m", "fingerprint": "f", "arrival": b""} | columns)
