"""Outages made on purpose."""

from __future__ import annotations

import asyncio

from ops.runtime.bus import Bus


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
