"""Counts what waits for each stage, so that operators see a pool that is too small."""

from __future__ import annotations

import asyncio

from ops.runtime import metrics
from ops.runtime.bus import Bus
from schemas.streams import CONSUMERS, TURNS

LOOK_EVERY = 5.0
"""Seconds between two looks."""


class Backlog:
    """Looks at every stage's consumer. One process is enough; several see the same."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def run(self) -> None:
        """Look, for ever. Raises nats errors where the server is away; whoever runs it tries again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Note how many messages wait for each stage or are in its hands."""
        js = self._bus.client.jetstream(timeout=2)
        for consumer in CONSUMERS:
            info = await js.consumer_info(TURNS.name, consumer.stage)
            metrics.backlog(consumer.stage, (info.num_pending or 0) + (info.num_ack_pending or 0))
