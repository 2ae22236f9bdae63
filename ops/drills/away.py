"""Servers in a drill's own hands, so that they can be away for as long as it likes, or lose what they stored."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ops.local.embedded_nats import EmbeddedNats
from ops.local.embedded_postgres import EmbeddedPostgres
from ops.local.files import PASSABLE_FOLDER


class Held:
    """A server that no supervisor starts again. Back, it has its old address."""

    def __init__(self, server: EmbeddedNats | EmbeddedPostgres, folder: Path) -> None:
        self._server, self._folder = server, folder

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    async def away(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """End it as a crash would; back after so many seconds, with what it had stored."""
        await self._server.kill()
        meanwhile()
        await asyncio.sleep(seconds)
        await self._server.start()

    def forget(self) -> None:
        """Lose what NATS has stored. To be called while it is away."""
        shutil.rmtree(self._folder / "nats" / "js")


@asynccontextmanager
async def held(kind: type[EmbeddedNats] | type[EmbeddedPostgres]) -> AsyncIterator[Held]:
    """A running server with a folder of its own; ended and removed on leaving."""
    folder = Path(tempfile.mkdtemp(prefix="cozy-held-"))
    # Root's PostgreSQL runs as another user, who has to get to its data.
    folder.chmod(PASSABLE_FOLDER)  # noqa: ASYNC240 - before anything runs
    server = kind(folder)
    try:
        await server.start()
        yield Held(server, folder)
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)
