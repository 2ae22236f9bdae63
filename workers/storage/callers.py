"""Who may call: keys by their hash, and users by their name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from workers.storage.database import Database
from workers.storage.queries import load

QUERIES = load("callers")


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key, whose it is, and what speaks against it."""

    key_id: str
    user_id: str
    role: str
    active: bool
    """Whether the user is."""
    revoked: bool
    expired: bool


class UserRow(msgspec.Struct, frozen=True, kw_only=True):
    """A user."""

    user_id: str
    role: str
    active: bool


class Callers:
    """Finds callers; takes note of them. Raises psycopg errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_key(self, key_hash: str) -> KeyRow | None:
        """The key of a SHA-256 (hex), valid or not."""
        return await self._database.one(QUERIES["find_key"], {"key_hash": key_hash}, KeyRow)

    async def find_user(self, name: str) -> UserRow | None:
        """The user of a name, active or not."""
        return await self._database.one(QUERIES["find_user"], {"name": name}, UserRow)

    async def add_user(self, user_id: str, name: str, role: str) -> None:
        """Add a user. One already there, by id or by name, is left as they are."""
        await self._database.run(QUERIES["add_user"], {"user_id": user_id, "name": name, "role": role})

    async def note_last_use(self, moments: Mapping[str, datetime]) -> int:
        """Store when each key (by id) was last used, at most once a minute for each; says how many that changed."""
        values = {"key_ids": list(moments), "moments": list(moments.values())}
        return await self._database.run(QUERIES["note_last_use"], values)
