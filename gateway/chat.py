"""`POST /v1/chat/completions`: asks for a turn, waits for its verdict, and hands its reply on as it comes."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import structlog
from litestar import post
from litestar.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from gateway import body, intake, problems, sse
from gateway.collect import Collector
from gateway.reply_reader import ReplyReader, Shown
from gateway.services import Asked, Services, services_of
from ops.runtime import metrics
from schemas.faults import Fault, fault_from
from schemas.ids import new_id
from schemas.openai import ChatRequest, text_of
from schemas.replies import Delta, Failed, Finished, Progress
from schemas.subjects import shard_of
from schemas.turns import Accepted, TurnRequested

log = structlog.get_logger()


@post("/chat/completions", status_code=200, reads=ChatRequest, summary="Create a chat completion")
async def chat_completions(request: Asked) -> ASGIApp:
    """OpenAI's chat completion, streamed or whole. Our part of the request and of the answer is called `cozy`."""
    services = services_of(request)
    api = services.config.api
    asked = await body.read(request.scope, request.receive, ChatRequest, api.max_body_bytes)
    intake.check(asked, services.config)
    turn = intake.turn_from(
        asked,
        request.user,
        cast(list[tuple[bytes, bytes]], request.scope["headers"]),
        request_id=problems.request_id_of(request.scope) or new_id(),
        gateway_id=services.gateway_id,
        now=time.time(),
        budget=api.verdict_budget,
        fresh_id=new_id(),
        scripted_allowed=services.config.app.environment != "production",
    )
    bind_contextvars(turn_id=turn.turn_id)
    reader, verdict = await _admitted(services, turn)
    if services.config.observability.log_content:
        log.info("asked", content=text_of(asked.messages[-1].content))
    answer = Answer(services, reader, verdict, turn)
    try:
        return await (answer.streamed() if asked.stream else answer.whole())
    except BaseException:
        await reader.close()
        raise


async def _admitted(services: Services, turn: TurnRequested) -> tuple[ReplyReader, Accepted]:
    """An open reader and the verdict. The ear is opened before the question is asked."""
    cozy = turn.request.cozy
    session_id = cozy.session_id if cozy and cozy.session_id else intake.hidden_session(turn.turn_id)
    reader = services.reader(turn.turn_id, turn.user_id, shard_of(session_id, services.config.storage.shards))
    await reader.open()
    try:
        verdict = await services.admission.ask(turn, services.config.api.verdict_budget)
        if verdict.turn_id != turn.turn_id:
            await reader.close()
            reader = services.reader(verdict.turn_id, turn.user_id, verdict.shard)
            await reader.open()
    except BaseException:
        await reader.close()
        raise
    bind_contextvars(turn_id=verdict.turn_id, session_id=verdict.session_id, personality_id=verdict.personality_id)
    return reader, verdict


class Answer:
    """One reply on its way to one client."""

    def __init__(self, services: Services, reader: ReplyReader, verdict: Accepted, turn: TurnRequested) -> None:
        self.services, self.reader, self.verdict = services, reader, verdict
        self.request = turn.request
        self.request_id = turn.request_id
        self.began = time.monotonic()

    @property
    def cozy(self) -> dict[str, Any]:
        """What the first chunk, or the whole answer, says of the turn."""
        verdict = self.verdict
        about: dict[str, Any] = {
            "turn_id": verdict.turn_id,
            "session_id": verdict.session_id,
            "personality_id": verdict.personality_id,
        }
        if verdict.ignored_messages:
            about["ignored_messages"] = verdict.ignored_messages
        return about

    async def _first(self) -> list[Shown]:
        return await self.reader.catch_up() if self.verdict.attached else []

    async def whole(self) -> ASGIApp:
        """The answer in one piece, once the reply is stored. Raises the fault the reply ended with."""
        collector = Collector(
            turn_id=self.verdict.turn_id, model=self.request.model, created=self.verdict.created, cozy=self.cozy
        )
        events = await self._first()
        while True:
            for event in events:
                if isinstance(event, Failed):
                    raise fault_from(event.fault)
                if isinstance(event, Finished):
                    await self.reader.close()
                    return WholeAnswer(collector.whole(event), self.verdict.turn_id)
                collector.take(event)
            events = list(await self.reader.read(self.services.config.api.heartbeat))

    async def streamed(self) -> ASGIApp:
        """The answer as a stream, once there is something to say or `api.header_wait` has passed.

        A reply that fails before its first word raises its fault, so that the client sees a status of its own.
        """
        options = self.request.stream_options
        chunks = sse.ChunkStream(
            turn_id=self.verdict.turn_id,
            model=self.request.model,
            created=self.verdict.created,
            cozy=self.cozy,
            include_usage=bool(options and options.include_usage),
        )
        events = await self._first() or list(await self.reader.read(self.services.config.api.header_wait))
        if events and isinstance(events[0], Failed):
            raise fault_from(events[0].fault)
        return StreamedAnswer(self, chunks, events)


class WholeAnswer:
    """An ASGI app that sends one JSON body."""

    def __init__(self, data: bytes, turn_id: str) -> None:
        self._data, self._turn_id = data, turn_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self._data)).encode()),
            (b"location", f"/v1/turns/{self._turn_id}".encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._data, "more_body": False})


class StreamedAnswer:
    """An ASGI app that sends a reply as it comes, a heartbeat where it is silent, and its end or its error."""

    def __init__(self, answer: Answer, chunks: sse.ChunkStream, events: list[Shown]) -> None:
        self._answer, self._chunks, self._events = answer, chunks, events
        self._told_first = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader = self._answer.reader
        location = f"/v1/turns/{self._answer.verdict.turn_id}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [*sse.HEADERS, (b"location", location)]})
        gone = asyncio.create_task(_gone(receive, reader))
        try:
            with metrics.sse_stream():
                await self._send_all(send)
        finally:
            gone.cancel()
            await reader.close()

    async def _send_all(self, send: Send) -> None:
        reader, heartbeat = self._answer.reader, self._answer.services.config.api.heartbeat
        data, ended = self._written(self._events)
        data = self._chunks.open() + data
        while True:
            await send({"type": "http.response.body", "body": data, "more_body": not ended})
            if ended or reader.closed:
                return
            events = await reader.read(heartbeat)
            data, ended = self._written(events) if events else (sse.HEARTBEAT, False)

    def _written(self, events: Any) -> tuple[bytes, bool]:
        parts = []
        for event in events:
            if type(event) is Delta:
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
        details = self._answer.services.config.api.error_details
        return self._chunks.failed(end, problems.error_body(fault, self._answer.request_id, details))

    def _note_first(self) -> None:
        if not self._told_first:
            self._told_first = True
            metrics.first_token(time.monotonic() - self._answer.began)


async def _gone(receive: Receive, reader: ReplyReader) -> None:
    """Stop reading for a client that left. Its turn goes on: leaving is not stopping."""
    while (await receive())["type"] != "http.disconnect":
        pass
    log.info("client_left")
    reader.leave()
