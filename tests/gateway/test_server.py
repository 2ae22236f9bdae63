"""The server: what is no HTTP is answered in our words, what never ends is bounded, and connections are reused."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import server
from gateway.server import HEAD_LIMIT, Server, listening, server_for
from ops.runtime.settings import Api
from tests.gateway.conftest import Running

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


class Wire:
    """A connection on which a test writes bytes and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def closed(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read(1) == b""


@pytest.fixture
async def wire(gateway: Running) -> Wire:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    return Wire(*await asyncio.open_connection(host, int(port)))


async def test_what_is_no_http_has_the_one_error_body(wire: Wire) -> None:
    await wire.send(b"good morning\r\n\r\n")
    status, headers, body = await wire.answer()
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "VALIDATION_VALUE")
    assert error["request_id"] == headers["x-request-id"]
    assert await wire.closed()


async def test_a_head_that_never_ends_is_not_kept(wire: Wire) -> None:
    await wire.send(GET + b"X: ")
    for _ in range(HEAD_LIMIT // 8192 + 1):
        await wire.send(b"a" * 8192)
    status, _, body = await wire.answer()
    assert status == 400
    assert str(HEAD_LIMIT) in json.loads(body)["error"]["message"]
    assert await wire.closed()


async def test_a_client_that_never_says_anything_is_sent_away(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.Protocol, "silence", 0.05)
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    silent = Wire(*await asyncio.open_connection(host, int(port)))
    halfway = Wire(*await asyncio.open_connection(host, int(port)))
    await halfway.send(GET)
    assert await silent.closed()
    assert await halfway.closed()


async def test_a_connection_serves_many_requests(wire: Wire) -> None:
    for _ in range(3):
        await wire.send(GET + b"\r\n")
        assert (await wire.answer())[0] == 200


async def test_requests_sent_at_once_are_answered_in_order(wire: Wire) -> None:
    await wire.send(GET + b"X-Request-Id: one\r\n\r\n" + GET + b"X-Request-Id: two\r\n\r\n")
    assert [(await wire.answer())[1]["x-request-id"] for _ in range(2)] == ["one", "two"]


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_an_offer_of_another_protocol_is_passed_over(wire: Wire, protocol: bytes) -> None:
    await wire.send(GET + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n")
    assert (await wire.answer())[0] == 200
    await wire.send(GET + b"\r\n")
    assert (await wire.answer())[0] == 200


async def test_the_rest_of_a_refused_body_is_thrown_away(gateway: Running, wire: Wire) -> None:
    await wire.send(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
    assert (await wire.answer())[0] == 404
    await wire.send(b"x" * 100_000 + GET + b"\r\n")
    assert (await wire.answer())[0] == 200


def test_a_port_that_is_taken_says_so() -> None:
    first = server.listening("127.0.0.1", 0)
    with first, pytest.raises(OSError, match="in use"):
        server.listening("127.0.0.1", first.getsockname()[1])


def test_an_address_of_the_new_kind_is_understood() -> None:
    with server.listening("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"


GO_ON = asyncio.Event()
"""Lets an answer that is given slowly end."""


async def greeting(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers at once."""
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    if scope["path"] == "/slowly":
        await send({"type": "http.response.body", "body": b"h", "more_body": True})
        await GO_ON.wait()
        await send({"type": "http.response.body", "body": b"i"})
    else:
        await send({"type": "http.response.body", "body": b"hi"})


@asynccontextmanager
async def serving(listener: socket.socket) -> AsyncIterator[Server]:
    """A server of that app, to be ended by the test."""
    serving = server_for(greeting, Api())
    serving.config.load()
    serving.lifespan = serving.config.lifespan_class(serving.config)
    await serving.startup([listener])
    yield serving
    await serving.lifespan.shutdown()
    assert serving.server_state.connections == set()


async def connected(listener: socket.socket) -> Wire:
    return Wire(*await asyncio.open_connection(*listener.getsockname()))


async def test_who_waits_in_the_queue_of_a_server_that_ends_is_answered() -> None:
    listener = listening("127.0.0.1", 0)
    address = listener.getsockname()
    async with serving(listener) as ending:
        # Connected without the loop's help: the kernel has taken them, the server knows nothing of them.
        waiting = [socket.create_connection(address) for _ in range(20)]
        stopped = asyncio.create_task(ending.shutdown([listener]))
        for connection in waiting:
            wire = Wire(*await asyncio.open_connection(sock=connection))
            await wire.send(GET + b"\r\n")
            status, headers, body = await wire.answer()
            assert (status, headers["connection"], body) == (200, "close", b"hi")
            assert await wire.closed()
        await stopped


async def test_a_server_that_ends_takes_no_new_connection() -> None:
    listener = listening("127.0.0.1", 0)
    address = listener.getsockname()
    async with serving(listener) as ending:
        await ending.shutdown([listener])
        with socket.socket() as late:
            assert late.connect_ex(address) != 0


async def test_an_idle_connection_may_ask_once_more_and_is_told_that_it_was_the_last_time() -> None:
    listener = listening("127.0.0.1", 0)
    async with serving(listener) as ending:
        wire = await connected(listener)
        await wire.send(GET + b"\r\n")
        assert "connection" not in (await wire.answer())[1]
        stopped = asyncio.create_task(ending.shutdown([listener]))
        await asyncio.sleep(0)
        await wire.send(GET + b"\r\n")
        assert (await wire.answer())[1]["connection"] == "close"
        assert await wire.closed()
        await stopped


async def test_behind_an_answer_that_had_begun_one_more_may_be_asked_for() -> None:
    listener = listening("127.0.0.1", 0)
    async with serving(listener) as ending:
        wire = await connected(listener)
        await wire.send(GET.replace(b"/livez", b"/slowly") + b"\r\n")
        await wire.reader.readuntil(b"\r\n\r\nh")
        stopped = asyncio.create_task(ending.shutdown([listener]))
        await asyncio.sleep(0)
        GO_ON.set()
        assert await wire.reader.readexactly(1) == b"i"
        await wire.send(GET + b"\r\n")
        assert (await wire.answer())[1]["connection"] == "close"
        assert await wire.closed()
        await stopped


async def test_an_idle_connection_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LINGER", 0.05)
    listener = listening("127.0.0.1", 0)
    async with serving(listener) as ending:
        silent, served = await connected(listener), await connected(listener)
        await served.send(GET + b"\r\n")
        await served.answer()
        async with asyncio.timeout(2):
            await ending.shutdown([listener])
        assert await silent.closed()
        assert await served.closed()


def test_a_port_can_be_shared_by_those_who_say_so() -> None:
    with listening("127.0.0.1", 0, shared=True) as first:
        port = first.getsockname()[1]
        with listening("127.0.0.1", port, shared=True) as second:
            assert second.getsockname()[1] == port
        with pytest.raises(OSError, match="in use"):
            listening("127.0.0.1", port)
