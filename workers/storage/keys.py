"""API keys, as an operator makes, lists and ends them."""

from __future__ import annotations

from datetime import datetime

import msgspec

from workers.storage.database import Database
from workers.storage.queries import load

QUERIES = load("keys")


class ListedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as a list shows it. The key itself is stored nowhere."""

    id: str
    key_hash: str
    prefix: str
    user_name: str
    role: str
    active: bool
    """Whether the user is."""
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    expired: bool

    @property
    def state(self) -> str:
        """`active`, or the first thing that speaks against it."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expired:
            return "expired"
        return "active" if self.active else "user inactive"


class Keys:
    """The rows of api_keys. Raises psycopg errors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key_id: str, user_id: str, key_hash: str, prefix: str, expires_days: int | None) -> None:
        """Store a key's hash and the start that tells it from others. None days: it does not expire."""
        values = {
            "key_id": key_id,
            "user_id": user_id,
            "key_hash": key_hash,
            "prefix": prefix,
            "expires_days": expires_days,
        }
        await self._database.run(QUERIES["add_key"], values)

    async def listed(self, user_name: str | None) -> list[ListedKey]:
        """Every key, or one user's, oldest first."""
        return await self._database.all(QUERIES["list_keys"], {"user_name": user_name}, ListedKey)

    async def named(self, named: str) -> list[ListedKey]:
        """The keys that an id or a prefix means; a prefix may mean several."""
        return await self._database.all(QUERIES["find_keys"], {"named": named}, ListedKey)

    async def revoke(self, key_id: str) -> None:
        """End a key for good; a key revoked before keeps its first moment."""
        await self._database.run(QUERIES["revoke_key"], {"key_id": key_id})
