"""Sends a reply to its client as it comes, and notices a client that has left or does not read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

import structlog
from litestar.types import Receive, Scope, Send

from gateway import problems, sse
from gateway.joining import Shown
from gateway.reply_reader import ReplyReader
from ops.runtime import metrics
from ops.runtime.settings import Api
from schemas.faults import Fault, fault_from
from schemas.replies import Delta, Failed, Finished, Progress

log = structlog.get_logger()

AT_ONCE = 128
"""Events in one piece of the body: a client that does not read holds up no more than that in memory."""
MOVING_SECONDS = 5.0
"""How long a client that is sent to another gateway may be on its way: browsers wait 3 to 5 s before they come back."""
ABORT = "abort"
"""In the state of a request's scope: breaks its connection off, whatever is still to be sent."""


class Watch:
    """Watches one client for as long as its reply takes: one that leaves ends the reading. Leaving is not stopping."""

    def __init__(self, receive: Receive, reader: ReplyReader) -> None:
        self._reader = reader
        self._task = asyncio.create_task(self._gone(receive))

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        log.info("client_left")
        self._reader.leave()

    def end(self) -> None:
        """The answer is sent, or there is none."""
        self._task.cancel()


class StreamedAnswer:
    """An ASGI app that sends a reply as it comes, a heartbeat where it is silent, and its end or its error.

    `events` are sent first. `began`, where the time to the first word is to be measured: when it was asked for.
    """

    def __init__(
        self,
        reader: ReplyReader,
        chunks: sse.ChunkStream,
        events: Sequence[Shown],
        watch: Watch,
        *,
        api: Api,
        request_id: str | None,
        began: float | None = None,
    ) -> None:
        self._reader, self._chunks, self._events, self._watch = reader, chunks, events, watch
        self._api, self._request_id, self._began = api, request_id, began

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._reader.on_stalled = _aborting(scope, self._reader)
        try:
            location = f"/v1/turns/{self._reader.turn_id}".encode()
            headers = [*sse.HEADERS, (b"location", location)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with metrics.sse_stream():
                await self._send_all(send)
            self._watch.end()  # the answer's end looks to it as if the client had left
            await self._reader.hand_over(min(MOVING_SECONDS, self._api.stream_grace))
        finally:
            self._watch.end()
            await self._reader.close()

    async def _send_all(self, send: Send) -> None:
        reader, clock = self._reader, asyncio.get_running_loop().time
        events, head = self._events, self._chunks.open()
        while True:
            for part in _parts(events):
                data, ended = self._written(part)
                data, head = head + data, b""
                if data or not part:
                    reader.sending_since = clock()
                    await send({"type": "http.response.body", "body": data or sse.HEARTBEAT, "more_body": not ended})
                    reader.sending_since = 0.0
                if ended:
                    return
            if reader.closed:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            events = await reader.read(self._api.heartbeat)

    def _written(self, events: Sequence[Shown]) -> tuple[bytes, bool]:
        parts = []
        for event in events:
            if isinstance(event, Delta):
                self._note_first()
                parts.append(self._chunks.delta(event))
            elif isinstance(event, Progress):
                parts.append(self._chunks.progress(event))
            elif isinstance(event, Finished):
                return b"".join((*parts, self._chunks.finish(event))), True
            elif isinstance(event, Failed):
                return b"".join((*parts, self._failed(event))), True
            else:
                parts.append(self._chunks.taken_over(event))
        return b"".join(parts), False

    def _failed(self, end: Failed) -> bytes:
        fault: Fault = fault_from(end.fault)
        return self._chunks.failed(end, problems.error_body(fault, self._request_id, self._api.error_details))

    def _note_first(self) -> None:
        if self._began is not None:
            metrics.first_token(time.monotonic() - self._began)
            self._began = None


def _parts(events: Sequence[Shown]) -> Iterator[Sequence[Shown]]:
    """The events in pieces; of none, one empty piece."""
    if len(events) <= AT_ONCE:
        yield events
        return
    for begin in range(0, len(events), AT_ONCE):
        yield events[begin : begin + AT_ONCE]


def _aborting(scope: Scope, reader: ReplyReader) -> Callable[[], None]:
    abort = (scope.get("state") or {}).get(ABORT)

    def stalled() -> None:
        log.warning("client_stalled", turn_id=reader.turn_id)
        metrics.client_stalled()
        reader.leave()
        if abort is not None:
            abort()

    return stalled
