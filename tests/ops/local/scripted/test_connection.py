"""HTTP as bytes: what a client that is not the official one may send."""

import asyncio
import json
from urllib.parse import urlsplit

import pytest

from ops.local.scripted.connection import MAX_BODY
from tests.ops.local.scripted.conftest import Server

READY = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"


async def opened(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(server.url)
    return await asyncio.open_connection(address.hostname, address.port)


async def said(server: Server, request: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    reader, writer = await opened(server)
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


def chat(body: dict[str, object], version: str = "1.1", extra: str = "connection: close\r\n") -> bytes:
    sent = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nhost: x\r\n{extra}content-length: {len(sent)}\r\n\r\n"
    return head.encode() + sent


HELLO: dict[str, object] = {"messages": [{"role": "user", "content": "hi"}]}


async def test_a_connection_serves_one_request_after_another(server: Server) -> None:
    reader, writer = await opened(server)
    for _ in range(3):
        writer.write(READY)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(15) == b'{"status":"ok"}'
    writer.close()


async def test_requests_sent_together_are_answered_in_order(server: Server) -> None:
    slow = {"messages": [{"role": "user", "content": "hi [[ttft=30 tokens=2]]"}], "stream": True}
    answer = await said(server, chat(slow, extra="") + chat(HELLO))
    assert answer.index(b"[DONE]") < answer.index(b'"chat.completion"')


async def test_a_request_may_arrive_byte_by_byte(server: Server) -> None:
    reader, writer = await opened(server)
    for byte in READY:
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_chunked_body_is_read(server: Server) -> None:
    body = json.dumps(HELLO).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    answer = await said(server, request + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_an_old_client_gets_a_stream_that_ends_with_the_connection(server: Server) -> None:
    answer = await said(server, chat({**HELLO, "stream": True}, version="1.0", extra=""))
    assert b"transfer-encoding" not in answer
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_waits_for_the_go_ahead_gets_it(server: Server) -> None:
    reader, writer = await opened(server)
    head, _, body = chat(HELLO, extra="expect: 100-continue\r\n").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_body_above_the_limit_is_refused_before_it_is_read(server: Server) -> None:
    request = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {MAX_BODY + 1}\r\n\r\n"
    reader, writer = await opened(server)
    writer.write(request.encode())
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_client_that_sends_a_body_above_the_limit_sees_the_refusal(server: Server) -> None:
    piece = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    reader, writer = await opened(server)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(MAX_BODY // 0x100000 + 8):
        writer.write(piece)
        await writer.drain()
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413")
    writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"this is not HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 400_000, 431),
        (chat({"messages": [{"role": "user", "content": 5}]}), 400),
        (b"POST /v1/embeddings HTTP/1.1\r\nconnection: close\r\ncontent-length: 3\r\n\r\n{\xff}", 400),
    ],
)
async def test_what_cannot_be_understood_is_refused(server: Server, request_bytes: bytes, status: int) -> None:
    assert (await said(server, request_bytes)).startswith(f"HTTP/1.1 {status} ".encode())
