"""What a process minds while tools run: claims it has lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from workers.delivery import Fenced
from workers.stops import Stopped, unless
from workers.storage.turn_rows import ToolsClaimed
from workers.storage.turns import Turns

LOOK_EVERY = 1.0
"""Seconds between two looks."""


class Attention:
    """One a process. A look is one question, however many rounds of calls are under way."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._open: dict[tuple[str, int], asyncio.Event] = {}

    @asynccontextmanager
    async def on(self, claimed: ToolsClaimed) -> AsyncIterator[None]:
        """Run the block while the claim holds. Soon after another owner has followed it is cancelled, and raises
        Fenced: an owner that was frozen must not go on for a turn that is not its own.
        """
        claim = (claimed.turn_id, claimed.epoch)
        lost = self._open[claim] = asyncio.Event()
        try:
            async with unless(lost):
                yield
        except Stopped:
            raise Fenced from None
        finally:
            del self._open[claim]

    async def run(self) -> None:
        """Look for claims that are lost, for ever. Raises psycopg errors."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._open:
                for claim in await self._turns.lost(list(self._open)):
                    if lost := self._open.get(claim):
                        lost.set()
