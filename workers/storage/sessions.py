"""Sessions and their messages, as their owner may see them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from schemas.records import Session, StoredMessage
from workers.storage.database import Database
from workers.storage.queries import load
from workers.storage.times import rfc3339, rfc3339_or_none

QUERIES = load("sessions")


class SessionPlace(NamedTuple):
    """A place in the list of sessions: what comes after it was made earlier."""

    created_at: str
    id: str


BEFORE_SESSIONS = SessionPlace("infinity", "ffffffff-ffff-ffff-ffff-ffffffffffff")
BEFORE_MESSAGES = 0


class MessageRow(msgspec.Struct, frozen=True, kw_only=True):
    """A message, its place in its session, and how many the query found before it looked at their size."""

    ord: int
    found: int
    message: StoredMessage


class Sessions:
    """Every question names its owner: another user's session, or a deleted one, is not there.

    Ids must be UUIDs. Raises psycopg errors.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, user_id: str, session_id: str, personality_id: str, title: str | None) -> Session | None:
        """Make a session, once. None: the id belongs to someone else's, or to a deleted one."""
        values = {"user_id": user_id, "session_id": session_id, "personality_id": personality_id, "title": title}
        return await self._database.one(QUERIES["create_session"], values, _session)

    async def get(self, user_id: str, session_id: str) -> Session | None:
        """The session, hidden or not."""
        return await self._database.one(
            QUERIES["get_session"], {"user_id": user_id, "session_id": session_id}, _session
        )

    async def after(self, user_id: str, place: SessionPlace, limit: int) -> list[Session]:
        """At most `limit` of the sessions that are shown in lists, newest first, from a place on."""
        values = {"user_id": user_id, "after_created_at": place.created_at, "after_id": place.id, "limit": limit}
        return await self._database.all(QUERIES["list_sessions"], values, _session)

    async def update(
        self, user_id: str, session_id: str, title: str | None, personality_id: str | None
    ) -> Session | None:
        """Change what is not None; an empty title clears it."""
        values = {"user_id": user_id, "session_id": session_id, "title": title, "personality_id": personality_id}
        return await self._database.one(QUERIES["update_session"], values, _session)

    async def delete(self, user_id: str, session_id: str) -> bool:
        """Take it out of sight; False where it was not in sight. Its turns go on."""
        return await self._database.run(QUERIES["delete_session"], {"user_id": user_id, "session_id": session_id}) > 0

    async def messages_after(self, session_id: str, place: int, limit: int, max_bytes: int) -> list[MessageRow]:
        """At most `limit` messages after a place, oldest first, up to `max_bytes` of JSON, but at least one.

        Whose session it is was asked before.
        """
        values = {"session_id": session_id, "after_ord": place, "limit": limit, "max_bytes": max_bytes}
        return await self._database.all(QUERIES["list_messages"], values, _message)


def _session(
    *,
    id: str,
    title: str | None,
    personality_id: str | None,
    message_count: int,
    last_message_at: datetime | None,
    created_at: datetime,
) -> Session:
    return Session(
        id=id,
        title=title,
        # Only the hidden session of a raw pass-through has no personality.
        personality_id=personality_id or "",
        message_count=message_count,
        last_message_at=rfc3339_or_none(last_message_at),
        created_at=rfc3339(created_at),
    )


def _message(*, ord: int, found: int, created_at: datetime, **columns: Any) -> MessageRow:
    return MessageRow(ord=ord, found=found, message=StoredMessage(created_at=rfc3339(created_at), **columns))
