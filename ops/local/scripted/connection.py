"""HTTP/1.1 on a socket: requests in, answers out, one at a time per connection."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import cast
from uuid import uuid4

import httptools
import msgspec

from ops.local.scripted.problems import Problem

MAX_BODY = 64 * 1024 * 1024
_MAX_HEAD = 256 * 1024
_MAX_PIPELINED = 16
_LINGER_S = 5
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JSON = {"content-type": "application/json"}


class Request(msgspec.Struct, frozen=True):
    """A request read to its end; header names are lower case."""

    method: str
    target: bytes
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """A request and the way to answer it: whole, or as a stream.

    `on_lost` is called if the client leaves before the answer is complete, `on_writable` when a blocked client
    reads again. After the loss, writing does nothing.
    """

    def __init__(self, connection: "Connection", request: Request, *, keep_alive: bool, chunked: bool) -> None:
        self.request = request
        self.on_lost: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self._connection = connection
        self._keep_alive = keep_alive
        self._chunked = chunked
        self._head_to_send = b""

    @property
    def blocked(self) -> bool:
        """Whether the client reads more slowly than we write."""
        return self._connection.blocked

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] = _JSON) -> None:
        """Send a complete answer."""
        self._connection.transport.write(self._whole(status, body, headers))
        self._end()

    def answer_half(self, status: int, body: bytes, headers: Mapping[str, str] = _JSON) -> None:
        """Send an answer's headers and half of its body, then close."""
        answer = self._whole(status, body, headers)
        self._connection.transport.write(answer[: len(answer) - (len(body) + 1) // 2])
        self.cut()

    def start_stream(self, headers: Mapping[str, str]) -> None:
        """Begin a stream. Its headers leave together with the first `write`, which must follow."""
        framing = {"transfer-encoding": "chunked"} if self._chunked else {}
        self._keep_alive = self._keep_alive and self._chunked
        self._head_to_send = self._head(200, {**headers, **framing})

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a part of the stream; `last` ends it. An empty part sends nothing."""
        framed = data
        head, self._head_to_send = self._head_to_send, b""
        if self._chunked:
            end = b"0\r\n\r\n" if last else b""
            framed = b"%x\r\n%b\r\n%b" % (len(data), data, end) if data else end
        if head or framed:
            self._connection.transport.write(head + framed)
        if last:
            self._end()

    def cut(self) -> None:
        """Close the connection after what was sent, without an end."""
        self.on_lost = self.on_writable = None
        self._connection.transport.close()

    def _whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
        length = {} if status == HTTPStatus.NO_CONTENT else {"content-length": str(len(body))}
        return self._head(status, {**headers, **length}) + body

    def _head(self, status: int, headers: Mapping[str, str]) -> bytes:
        return head(status, headers if self._keep_alive else {**headers, "connection": "close"})

    def _end(self) -> None:
        self.on_lost = self.on_writable = None
        self._connection.done(keep_alive=self._keep_alive)


class Connection(asyncio.Protocol):
    """One client's connection: parses requests and hands them to `handle` one after the other.

    Reading never pauses, even while an answer streams: a client that leaves is noticed at once.
    """

    transport: asyncio.Transport

    def __init__(self, handle: Callable[[Exchange], None], connections: "set[Connection]") -> None:
        self.blocked = False
        self._handle = handle
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._current: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._refused = False
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._head_size = 0
        self._in_head = True

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._waiting.clear()
        if self._current is not None and self._current.on_lost is not None:
            self._current.on_lost()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(Problem(400, "This is not HTTP as we understand it."))
            return
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > _MAX_HEAD:
                self._refuse(Problem(431, "The request's headers are too large."))

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        if self._current is not None and self._current.on_writable is not None:
            self._current.on_writable()

    # What the parser tells.

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode(errors="replace")

    def on_headers_complete(self) -> None:
        self._in_head = False
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > MAX_BODY:
            self._refuse_body()
        elif self._headers.get("expect", "").lower() == "100-continue" and self._current is None:
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            self._body += body
            if len(self._body) > MAX_BODY:
                self._refuse_body()

    def on_message_complete(self) -> None:
        self._in_head, self._head_size = True, 0
        if self._refused:
            return
        request = Request(self._parser.get_method().decode("latin-1"), self._target, self._headers, bytes(self._body))
        keep_alive = self._parser.should_keep_alive()
        chunked = self._parser.get_http_version() != "1.0"
        self._waiting.append(Exchange(self, request, keep_alive=keep_alive, chunked=chunked))
        self._body = bytearray()
        if len(self._waiting) > _MAX_PIPELINED:
            self.transport.abort()
        elif self._current is None:
            self._next()

    # What an exchange tells.

    def done(self, *, keep_alive: bool) -> None:
        """The current answer is complete."""
        self._current = None
        if not keep_alive:
            self.transport.close()
        elif self._waiting:
            self._next()

    def _next(self) -> None:
        if not self.transport.is_closing():
            self._current = self._waiting.popleft()
            self._handle(self._current)

    def _refuse_body(self) -> None:
        self._refuse(Problem(413, f"The request's body is larger than {MAX_BODY} bytes."))

    def _refuse(self, problem: Problem) -> None:
        """Answer at once and say no more; what the client still sends is read and dropped.

        To close with something unread would reset the connection, and the client might never see the answer.
        """
        if self._refused:
            return
        self._refused = True
        self._body = bytearray()
        if self._current is not None:
            self.transport.close()
            return
        body = problem.body()
        headers = {**_JSON, "content-length": str(len(body)), "connection": "close"}
        self.transport.write(head(problem.status, headers) + body)
        self.transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, self.transport.abort)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """The status line and headers of an answer."""
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", f"x-request-id: req_{uuid4().hex}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Scripted"
