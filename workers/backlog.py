"""Looks at what waits for each stage: for operators, who see a pool that is too small, and for the sweeper."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec
import nats.errors

from ops.runtime import metrics
from ops.runtime.bus import Bus, BusUnavailable
from schemas.streams import CONSUMERS, TURNS, ConsumerSpec

LOOK_EVERY = 5.0
"""Seconds between two looks."""
ASK_SECONDS = 2.0


class _Place(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _Consumer(msgspec.Struct, frozen=True):
    """What the server says of a consumer; `ts` is the server's own time."""

    delivered: _Place = _Place()
    num_pending: int = 0
    num_ack_pending: int = 0
    ts: datetime | None = None


class Backlog:
    """Looks at every stage's consumer. One process is enough; several see the same."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def run(self) -> None:
        """Look, for ever. Raises BusUnavailable where the server is away; whoever runs it tries again."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Note how many messages wait for each stage or are in its hands."""
        for consumer in CONSUMERS:
            info = await self._info(consumer)
            metrics.backlog(consumer.stage, info.num_pending + info.num_ack_pending)

    async def age(self, consumer: ConsumerSpec) -> float | None:
        """How many seconds ago the oldest event was sent that no worker of this stage has had yet; None for no backlog.

        By the NATS server's clock alone. Raises BusUnavailable.
        """
        info = await self._info(consumer)
        if not info.num_pending or info.ts is None:
            return None
        question = {"seq": info.delivered.stream_seq + 1, "next_by_subj": consumer.filter_subject}
        try:
            subject, body = f"$JS.API.DIRECT.GET.{TURNS.name}", msgspec.json.encode(question)
            oldest = await self._bus.client.request(subject, body, timeout=ASK_SECONDS)
        except (nats.errors.Error, TimeoutError) as error:
            raise BusUnavailable(type(error).__name__) from error
        sent = (oldest.headers or {}).get("Nats-Time-Stamp")  # none where it was taken in between
        return max(0.0, (info.ts - msgspec.convert(sent, datetime)).total_seconds()) if sent else None

    async def _info(self, consumer: ConsumerSpec) -> _Consumer:
        subject = f"$JS.API.CONSUMER.INFO.{TURNS.name}.{consumer.stage}"
        return msgspec.json.decode(await self._bus.ask(subject, b"", timeout=ASK_SECONDS), type=_Consumer)
