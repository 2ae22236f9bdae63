"""The door of memory_writeback: finished turns are noted and counted, once; then a session may get a name."""

from __future__ import annotations

import asyncio

import structlog

from schemas.turns import TurnCompleted
from workers.storage.memory import MemoryShelf

log = structlog.get_logger()

TITLE_LENGTH = 60
GATHER_SECONDS = 0.02
"""How long a finished turn waits for others, to be noted in one statement with them. Nobody waits for it."""


class MemoryWriteback:
    """Notes finished turns. What is to be remembered of them is read from the table `memory_writes`."""

    def __init__(self, shelf: MemoryShelf) -> None:
        self._shelf = shelf
        self._gathering: list[str] = []
        self._noting: asyncio.Task[None] | None = None

    async def on_turn_completed(self, event: TurnCompleted) -> None:
        """Count the turn into its session and name a session that has no name."""
        self._gathering.append(event.turn_id)
        if self._noting is None:
            self._noting = asyncio.create_task(self._note_gathered())
        # Shielded: the others in this statement must not fail because one delivery was cancelled.
        await asyncio.shield(self._noting)
        log.info("turn_counted")

    async def _note_gathered(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        turn_ids, self._gathering, self._noting = self._gathering, [], None
        for noted in await self._shelf.note(turn_ids):
            if noted.untitled:
                title = title_of(await self._shelf.first_words(noted.session_id))
                if title:
                    await self._shelf.title(noted.session_id, title)


def title_of(words: str) -> str:
    """A session's name: the beginning of its first message, cut at a word."""
    line = " ".join(words.split())
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[:TITLE_LENGTH]
    space = cut.rfind(" ")
    # Languages without spaces are cut where the room ends.
    return (cut[:space] if space > TITLE_LENGTH // 2 else cut[: TITLE_LENGTH - 1]) + "…"
