"""The server: what is no HTTP is answered in our words, what never ends is bounded, and connections are reused."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway import server
from gateway.server import HEAD_LIMIT
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
