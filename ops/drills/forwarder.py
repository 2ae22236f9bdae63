"""Passes connections on from one address to another, so that processes on an island reach servers that listen here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine

CHUNK = 1 << 16


class Forwarder:
    """Listens on `host` and `port` and connects each caller with `target`, bytes unchanged."""

    def __init__(self, host: str, port: int, target: tuple[str, int]) -> None:
        self._here, self._target = (host, port), target
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, *self._here)

    async def stop(self) -> None:
        """Hang up on everyone."""
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            # Cancelled where we hang up: what is left of a connection then concerns nobody.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                try:
                    await _either(_pump(reader, far_writer), _pump(far_reader, writer))
                finally:
                    far_writer.close()
        finally:
            writer.close()


async def _either(*ways: Coroutine[None, None, None]) -> None:
    """Run both directions until one ends."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
