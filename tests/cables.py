"""Ways to a server that a test can cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class Cable:
    """Carries connections to a server, to be reached at `url`.

    While it is cut nothing is carried: a dead switch, behind which connections stay open and what was sent arrives when
    it is joined; or, where the cut is `lost`, a dead server, which hangs up and lets nobody in.
    """

    def __init__(self, url: str) -> None:
        there = urlsplit(url)
        self._there, self._url = (there.hostname, there.port), url
        self._joined = asyncio.Event()
        self._joined.set()
        self._lost = False
        self._carrying: set[asyncio.Task[None]] = set()

    async def lay(self) -> None:
        """Begin to carry."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1")
        here = self._server.sockets[0].getsockname()[1]
        self.url = self._url.replace(f"{self._there[0]}:{self._there[1]}", f"127.0.0.1:{here}")

    def cut(self, *, lost: bool = False) -> None:
        """Carry nothing from now on."""
        self._joined.clear()
        self._lost = lost
        if lost:
            self._hang_up()

    def join(self) -> None:
        """Carry again."""
        self._lost = False
        self._joined.set()

    async def remove(self) -> None:
        """Hang up for good."""
        self._server.close()
        self._hang_up()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _hang_up(self) -> None:
        for task in self._carrying:
            task.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            if not self._lost:
                far_reader, far_writer = await asyncio.open_connection(*self._there)
                with contextlib.closing(far_writer):
                    await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._joined.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def cable_to(url: str) -> AsyncIterator[Cable]:
    """A cable to the server at this address."""
    cable = Cable(url)
    await cable.lay()
    yield cable
    await cable.remove()
