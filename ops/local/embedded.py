"""What the embedded servers have in common: being started, and failing to."""

import asyncio
from typing import Protocol

from ops.local.child import Child
from ops.local.readiness import until

START_LIMIT = 30.0


class ServerFailed(Exception):
    """An embedded server did not start. The message says why, with the end of its log."""


class Server(Protocol):
    """An embedded server as `until_started` sees it."""

    name: str
    url: str

    async def launch(self) -> Child: ...
    async def is_ready(self) -> bool: ...
    async def kill(self) -> None: ...


async def until_started(server: Server, limit: float = START_LIMIT) -> str:
    """Launch `server` and give its URL once it answers.

    Raises ServerFailed, and leaves no process, if it ends before that or takes more than `limit` seconds.
    """
    try:
        return await _ready(server, limit)
    except BaseException:
        await server.kill()
        raise


async def _ready(server: Server, limit: float) -> str:
    child = await server.launch()
    ended = asyncio.create_task(child.wait())
    ready = asyncio.create_task(until(server.is_ready))
    try:
        await asyncio.wait({ended, ready}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and not ended.done():
            await ready
            return server.url
    finally:
        ended.cancel()
        ready.cancel()
    why = child.describe_exit() if ended.done() else f"was not ready after {limit:g} s"
    raise ServerFailed(f"{server.name} {why}. {child.last_words()}")
