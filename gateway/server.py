"""The server: uvicorn, told to leave signals to us, to answer nonsense in our words, to bound what it buffers, and to
end without turning anybody away who had already knocked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.problems import JSON, error_body
from gateway.streamed import ABORT
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
LINGER = 0.5
"""Seconds a connection that is idle when the server ends has for one more request: it may be on its way already."""


class Protocol(HttpToolsProtocol):
    """One connection, whose client may neither stay silent nor talk for ever before its request's head is whole."""

    silence: float = KEEP_ALIVE
    in_head = False
    head_bytes = 0
    ending = False

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
        self.scope["state"][ABORT] = self.transport.abort
        super().on_headers_complete()
        if self.ending:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The server ends: what is being answered is finished, and the next answer says that it is the last.

        A connection that nobody was told about, idle now or behind an answer whose head is out already, may be asked
        on once more: it closes after `LINGER` seconds in which nothing is asked.
        """
        self.ending = True
        self.silence = LINGER
        self.timeout_keep_alive = LINGER  # type: ignore[assignment]  # seconds, and a fraction works
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self._close_if_silent()
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, serve those that are there, and end. At most the grace and a little more.

        A client whose connection the kernel has taken but we have not would be reset by the closing of the listener,
        though it was promised an answer; where gateways share a port that happens at every restart of a busy one.
        """
        waiting = [listener.dup() for listener in sockets or []]
        for server in self.servers:
            server.close()
        for listener in waiting:
            await self._take_all(listener)
        await super().shutdown(sockets)

    async def _take_all(self, listener: socket.socket) -> None:
        """Accept whoever waits in this listener's queue, and close it."""
        for connection in _queue_of(listener):
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._ending, connection)

    def _ending(self) -> Protocol:
        protocol = Protocol(self.config, self.server_state, self.lifespan.state)
        protocol.ending = True
        return protocol


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


def listening(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket on which clients already queue; port 0 takes a free one. Raises OSError where the address is taken.

    `shared`: several processes of one user may listen on the port; the kernel gives each its part of the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without its protocol named, asyncio takes it for no TCP socket and leaves Nagle's delay of 40 ms on.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _queue_of(listener: socket.socket) -> list[socket.socket]:
    """The connections that wait in a listener's queue; it is closed right behind the last one, for who comes in
    between is reset."""
    waiting: list[socket.socket] = []
    with listener:
        listener.setblocking(False)
        try:
            while True:
                waiting.append(listener.accept()[0])
        except BlockingIOError:
            pass  # that was all
        except OSError as error:
            log.warning("waiting_connections_reset", error=type(error).__name__)
    return waiting
