"""Asking a local server whether it is ready, without the weight of an HTTP client."""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

PATIENCE = 2.0
PAUSE = 0.1


async def first_line(url: str, send: bytes = b"") -> bytes:
    """The first line that the server at `url` says after `send`; nothing if it does not answer within 2 s."""
    where = urlsplit(url)
    if not where.port:
        return b""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            try:
                writer.write(send)
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError):  # ValueError: a line without an end is not the answer we look for
        return b""


async def answers_200(url: str) -> bool:
    """Whether `GET url` gives 200."""
    where = urlsplit(url)
    line = await first_line(
        url, f"GET {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n\r\n".encode()
    )
    return line.startswith(b"HTTP/") and line.split()[1:2] == [b"200"]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it is so. Without a limit of its own."""
    while not await is_so():  # noqa: ASYNC110 - another process's readiness rings no bell here
        await asyncio.sleep(PAUSE)
