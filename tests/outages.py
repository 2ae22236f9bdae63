"""Outages made on purpose."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from ops.runtime import topology
from ops.runtime.bus import Bus
from schemas.streams import STREAMS
from tests.conftest import LEASE_SECONDS


async def cut_off(bus: Bus) -> None:
    """Break a connection, and come back when it is there again and what must be done again is done."""
    again = asyncio.Event()

    async def note() -> None:
        again.set()

    bus.on_reconnect.append(note)
    assert bus.client._transport is not None
    bus.client._transport.close()  # type: ignore[no-untyped-call]
    async with asyncio.timeout(10):
        await again.wait()
    bus.on_reconnect.remove(note)


@contextlib.asynccontextmanager
async def store_lost(bus: Bus) -> AsyncIterator[None]:
    """The NATS server is without its streams and all that was in them; afterwards they are as other tests want them."""
    for stream in STREAMS:
        await bus.client.jetstream().delete_stream(stream.name)
    yield
    await topology.ensure(bus, lease=LEASE_SECONDS)
