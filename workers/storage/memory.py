"""What a finished turn leaves in its session and in the queue of memory writes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.openai import Content, text_of
from workers.storage.database import Database
from workers.storage.queries import load

QUERIES = load("memory")
read_content = msgspec.json.Decoder(Content | None).decode


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """A session into which turns were counted just now."""

    session_id: str
    untitled: bool


class _Content(msgspec.Struct):
    content: str


class MemoryShelf:
    """Raises psycopg errors."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def note(self, turn_ids: Sequence[str]) -> list[Noted]:
        """Note each turn once; the sessions of those that had not been noted before."""
        return await self.database.all(QUERIES["note_turns"], {"turn_ids": list(turn_ids)}, Noted)

    async def first_words(self, session_id: str) -> str:
        """The text of the session's first message from its user; empty where it has none."""
        row = await self.database.one(QUERIES["first_words"], {"session_id": session_id}, _Content)
        return text_of(read_content(row.content)) if row else ""

    async def title(self, session_id: str, title: str) -> None:
        """Name the session, unless it has a name."""
        await self.database.run(QUERIES["title_session"], {"session_id": session_id, "title": title})
