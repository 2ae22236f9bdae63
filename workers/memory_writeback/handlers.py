"""The door of memory_writeback: a finished turn is noted and counted, once; then its session may get a name."""

from __future__ import annotations

from schemas.turns import TurnCompleted
from workers.storage.memory import MemoryShelf

TITLE_LENGTH = 60


class MemoryWriteback:
    """Notes finished turns. What is to be remembered of them is read from the table `memory_writes`."""

    def __init__(self, shelf: MemoryShelf) -> None:
        self._shelf = shelf

    async def on_turn_completed(self, event: TurnCompleted) -> None:
        """Count the turn into its session and name a session that has no name."""
        noted = await self._shelf.note(event.turn_id)
        if noted is not None and noted.untitled:
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
