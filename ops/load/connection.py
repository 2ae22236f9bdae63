"""A small HTTP/1.1 client connection: one request at a time, kept alive between them.

No client library: the load shares its cores with what it measures, so an event must cost a few microseconds.
"""

import asyncio
import time
from typing import cast

import httptools

from ops.load.replies import Answer

# Servers close idle connections after about five seconds; one that old might close under a request.
IDLE_SECONDS = 2.0


class Connection(asyncio.Protocol):
    """Writes requests as given and feeds what comes back to an `Answer`. Also the parser's listener."""

    def __init__(self) -> None:
        self.bytes_in = 0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._over: asyncio.Future[None] | None = None
        self._content_type = b""
        self._keeps_alive = False
        self._now = 0.0

    async def exchange(self, request: bytes, answer: Answer, timeout: float) -> None:
        """Send `request` and hear `answer` out, to its end, its loss, or `timeout` seconds.

        Never raises for what a server does: `answer.fault` tells. The connection must be `usable`.
        """
        if self._transport is None or self._answer is not None:
            raise RuntimeError("the connection is closed or busy")
        loop = asyncio.get_running_loop()
        self._answer, self._over = answer, loop.create_future()
        self._content_type = b""
        timer = loop.call_later(timeout, self._expire)
        answer.written_at = time.perf_counter()
        self._transport.write(request)
        try:
            await self._over
        finally:
            timer.cancel()
            if self._answer is not None:  # cancelled: the rest of this answer must not meet the next request
                self.close()

    def usable(self) -> bool:
        """Whether another request may be sent here."""
        return self._transport is not None and time.perf_counter() - self._now < IDLE_SECONDS

    def close(self) -> None:
        """Close at once. Safe to call twice."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _settle(self) -> None:
        self._answer = None
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _expire(self) -> None:
        if self._answer is not None:
            self._answer.expire()
            self._settle()
        self.close()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without being subclasses.
        self._transport = cast(asyncio.Transport, transport)
        self._now = time.perf_counter()

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        self.bytes_in += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # our own mistake, not the server's
        except httptools.HttpParserError:
            if self._answer is not None:
                self._answer.fail("malformed http")
                self._settle()
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None:
            self._answer.lost()
            self._settle()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._content_type = value

    def on_headers_complete(self) -> None:
        self._keeps_alive = self._parser.should_keep_alive()
        if self._answer is not None:
            self._answer.head(self._parser.get_status_code(), self._content_type)

    def on_body(self, data: bytes) -> None:
        if self._answer is not None:
            self._answer.body(data, self._now)

    def on_message_complete(self) -> None:
        if self._answer is not None:
            self._answer.end()
            self._settle()
        if not self._keeps_alive:
            self.close()
