"""Bytes pass unchanged both ways, and hanging up hangs up on everyone."""

from __future__ import annotations

import asyncio

from ops.drills.forwarder import Forwarder
from ops.local.remembered import free_port


async def test_a_caller_is_connected_with_the_server_behind_until_all_are_hung_up_on() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = free_port()
    forwarder = Forwarder("127.0.0.1", port, server.sockets[0].getsockname())
    await forwarder.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"there and back\n")
    async with asyncio.timeout(5):
        assert await reader.readline() == b"there and back\n"
        await forwarder.stop()
        assert await reader.read() == b""
    writer.close()
    server.close()
