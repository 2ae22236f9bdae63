"""Every reader of a reply in this process: who is told the time, and who is told that the process ends."""

from __future__ import annotations

import asyncio
from weakref import WeakSet

from gateway.reply_reader import ReplyReader
from schemas.faults import Fault

TICK = 0.25
"""Seconds: how exactly a reader's time limits are kept."""


class Readers:
    """The open readers of one gateway."""

    def __init__(self) -> None:
        self._open: WeakSet[ReplyReader] = WeakSet()

    def add(self, reader: ReplyReader) -> ReplyReader:
        """Take a reader in; it is forgotten when nobody holds it any more."""
        self._open.add(reader)
        return reader

    async def tell_time(self) -> None:
        """End the waits whose time has come, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            for reader in list(self._open):
                reader.look_at(now)

    def end_all(self, fault: Fault) -> None:
        """End every reader's reading, not the turns."""
        for reader in list(self._open):
            reader.give_up(fault)
