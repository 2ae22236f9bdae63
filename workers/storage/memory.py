"""What a finished turn leaves in its session and in the queue of memory writes."""

from __future__ import annotations

import msgspec

from schemas.openai import Content, text_of
from workers.storage.database import Database
from workers.storage.queries import load

QUERIES = load("memory")
read_content = msgspec.json.Decoder(Content | None).decode


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """A turn was counted into its session just now."""

    session_id: str
    untitled: bool


class _Content(msgspec.Struct):
    content: str


class MemoryShelf:
    """Raises psycopg errors."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def note(self, turn_id: str) -> Noted | None:
        """Note the turn once; None where it was noted before."""
        return await self.database.one(QUERIES["note_turn"], {"turn_id": turn_id}, Noted)

    async def first_words(self, session_id: str) -> str:
        """The text of the session's first message from its user; empty where it has none."""
        row = await self.database.one(QUERIES["first_words"], {"session_id": session_id}, _Content)
        return text_of(read_content(row.content)) if row else ""

    async def title(self, session_id: str, title: str) -> None:
        """Name the session, unless it has a name."""
        await self.database.run(QUERIES["title_session"], {"session_id": session_id, "title": title})
