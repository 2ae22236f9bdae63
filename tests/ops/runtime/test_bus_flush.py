"""Asking the server whether it has seen all: it may be away, or answer too late."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ops.local.embedded_nats import EmbeddedNats
from ops.runtime.bus import Bus
from tests.cables import cable_to


async def test_an_answer_that_comes_too_late_makes_nobody_deaf(nats_url: str) -> None:
    """nats-py would stop reading at the answer to a ping that was given up."""
    async with cable_to(nats_url) as cable:
        own, heard = await Bus.connect(cable.url, "own"), asyncio.Queue[bytes]()
        await own.listen("test.late", lambda _, data: heard.put_nowait(data))
        assert await own.flush(timeout=10)
        cable.cut()
        assert not await own.flush(timeout=0.05)
        cable.join()
        assert await own.flush(timeout=10)
        await own.publish("test.late", b"x")
        async with asyncio.timeout(10):
            assert await heard.get() == b"x"
        await own.close()


async def test_who_is_away_is_not_waited_for(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path)
    own = await Bus.connect(await server.start(), "own")
    await server.kill()
    async with asyncio.timeout(10):
        while own.connected:
            await own.flush(timeout=0.05)
        assert not await own.flush(timeout=60)
        await own.close()
