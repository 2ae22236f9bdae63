"""The server: uvicorn, told to leave signals to us, to answer nonsense in our words, and to bound what it buffers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.problems import JSON, error_body
from ops.runtime.settings import Api
from schemas.faults import InvalidValue
from schemas.ids import new_id

log = structlog.get_logger()

KEEP_ALIVE = 75
"""Seconds an idle connection is kept. Longer than the 60 of common proxies, so that they close first and never send
into a connection that we are just closing."""
BACKLOG = 2048
HEAD_LIMIT = 64 * 1024
"""Bytes of request line and headers that may come in more than one piece. uvicorn has no limit of its own here."""
LAST_WORDS = 2
"""Seconds beyond the grace in which streams that had to be ended say so."""


class Protocol(HttpToolsProtocol):
    """One connection, whose client may neither stay silent nor talk for ever before its request's head is whole."""

    silence = float(KEEP_ALIVE)
    in_head = False
    head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._close_if_silent()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.in_head and not self.transport.is_closing():
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_LIMIT:
                self.send_400_response("")
            else:
                self._close_if_silent()

    def on_message_begin(self) -> None:
        self.in_head, self.head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.in_head = False
        super().on_headers_complete()

    def _close_if_silent(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.silence, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed gets the one error body as well. uvicorn would send plain text."""
        text = f"The request is not valid HTTP, or its head is larger than {HEAD_LIMIT} bytes."
        request_id = new_id()
        body = error_body(InvalidValue(text), request_id, details=False)
        head = (
            f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        log.info("request_unreadable", request_id=request_id, status=400)
        self.transport.write(STATUS_LINE[400] + head.encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: `should_exit` is set by whoever heard the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_for(app: Any, api: Api) -> Server:
    """A server of this app. Told to exit, it closes its ports, gives open requests `api.stream_grace` seconds and a
    little more for last words, and cancels what is left."""
    return Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            loop="none",  # the loop that runs us is there already
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(api.stream_grace) + LAST_WORDS,
        )
    )


def listening(host: str, port: int) -> socket.socket:
    """A socket on which clients already queue; port 0 takes a free one. Raises OSError where the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without its protocol named, asyncio takes it for no TCP socket and leaves Nagle's delay of 40 ms on.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
