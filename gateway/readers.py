"""Every reader of a reply in this process: who is told the time, an outage, and that the process ends."""

from __future__ import annotations

import asyncio
import random
from weakref import WeakSet

from gateway.records_client import Records
from gateway.reply_reader import ReplyReader
from ops.runtime.bus import Bus
from schemas.faults import EngineOverloaded

TICK = 0.25
"""Seconds: how exactly a reader's time limits are kept."""
REPLAYS_AT_ONCE = 16
"""Readers that read the stream back at the same time. More of them would only wait for each other at the server."""
SPREAD = 1.0
"""Seconds over which all readers read the stream back after an outage."""


class Readers:
    """The open readers of one gateway."""

    def __init__(self) -> None:
        self._open: WeakSet[ReplyReader] = WeakSet()
        self._resumable: WeakSet[ReplyReader] = WeakSet()
        self._replays = asyncio.Semaphore(REPLAYS_AT_ONCE)

    def make(
        self, bus: Bus, records: Records, *, turn_id: str, user_id: str, shard: int, resumable: bool = False
    ) -> ReplyReader:
        """A reader, not open yet; it is forgotten when nobody holds it any more.

        `resumable`: its client comes back by itself, with the last id it has seen.
        """
        reader = ReplyReader(bus, records, self._replays, turn_id=turn_id, user_id=user_id, shard=shard)
        self._open.add(reader)
        if resumable:
            self._resumable.add(reader)
        return reader

    async def tell_time(self) -> None:
        """End the waits whose time has come, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            for reader in list(self._open):
                reader.look_at(now)

    async def doubt(self) -> None:
        """After an outage of the bus: what was said meanwhile was not heard. All look, one after the other."""
        loop = asyncio.get_running_loop()
        for reader in list(self._open):
            loop.call_later(random.random() * SPREAD, reader.doubt)  # noqa: S311 - only to spread them

    def end_resumable(self) -> None:
        """Send the clients that come back by themselves to another gateway: their streams end where they are."""
        for reader in list(self._resumable):
            reader.send_away()

    def end_all(self) -> None:
        """End every reader's reading, not the turns; each is told where its reply can be read on."""
        for reader in list(self._open):
            reader.give_up(
                EngineOverloaded(
                    f"The gateway is restarting. The reply goes on: read it from GET /v1/turns/{reader.turn_id}/stream."
                )
            )
