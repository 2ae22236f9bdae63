"""`POST /v1/chat/completions`: asks for a turn, waits for its verdict, and hands its reply on as it comes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import structlog
from litestar import post
from litestar.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from gateway import body, intake, problems, sse
from gateway.collect import Collector
from gateway.joining import Shown
from gateway.reply_reader import ReplyReader
from gateway.services import Asked, Services, services_of
from gateway.streamed import StreamedAnswer, Watch
from schemas.faults import Fault, fault_from
from schemas.ids import new_id
from schemas.openai import ChatRequest, text_of
from schemas.replies import Failed, Finished
from schemas.subjects import shard_of
from schemas.turns import Accepted, TurnRequested

log = structlog.get_logger()


@post("/chat/completions", status_code=200, reads=ChatRequest, summary="Create a chat completion")
async def chat_completions(request: Asked) -> ASGIApp:
    """OpenAI's chat completion, streamed or whole. Our part of the request and of the answer is called `cozy`."""
    services = services_of(request)
    api = services.config.api
    asked = await body.read(request.scope, request.receive, intake.ChatBody, api.max_body_bytes)
    intake.check(asked, services.config)
    turn = intake.turn_from(
        asked,
        request.user,
        cast(list[tuple[bytes, bytes]], request.scope["headers"]),
        request_id=problems.request_id_of(request.scope) or new_id(),
        now=time.time(),
        fresh_id=new_id(),
        scripted_allowed=services.config.app.environment != "production",
    )
    bind_contextvars(turn_id=turn.turn_id)
    reader, verdict = await _admitted(services, turn)
    if services.config.observability.log_content:
        log.info("asked", content=text_of(asked.messages[-1].content))
    watch = Watch(request.receive, reader)
    answer = Answer(services, reader, verdict, turn, watch)
    try:
        return await (answer.streamed() if asked.stream else answer.whole())
    except BaseException:
        watch.end()
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

    def __init__(
        self, services: Services, reader: ReplyReader, verdict: Accepted, turn: TurnRequested, watch: Watch
    ) -> None:
        self.services, self.reader, self.verdict, self.watch = services, reader, verdict, watch
        self.request = turn.request
        self.request_id = turn.request_id
        self.began = time.monotonic()
        if verdict.attached:
            reader.come_late()

    @property
    def cozy(self) -> dict[str, Any]:
        """What the first chunk, or the whole answer, says of the turn."""
        verdict = self.verdict
        return about(verdict.turn_id, verdict.session_id, verdict.personality_id, verdict.ignored_messages)

    async def whole(self) -> ASGIApp:
        """The answer in one piece, once the reply is stored. Raises the fault the reply ended with."""
        collector = Collector(
            turn_id=self.verdict.turn_id, model=self.request.model, created=self.verdict.created, cozy=self.cozy
        )
        while True:
            for event in await self._read(self.services.config.api.heartbeat):
                if isinstance(event, Failed):
                    raise self._fault(event)
                if isinstance(event, Finished):
                    self.watch.end()
                    await self.reader.close()
                    return WholeAnswer(collector.whole(event), self.verdict.turn_id)
                collector.take(event)

    async def streamed(self) -> ASGIApp:
        """The answer as a stream, once there is something to say or `api.header_wait` has passed.

        A reply that fails before its first word raises its fault, so that the client sees a status of its own.
        """
        options = self.request.stream_options
        api = self.services.config.api
        chunks = sse.ChunkStream(
            turn_id=self.verdict.turn_id,
            model=self.request.model,
            created=self.verdict.created,
            cozy=self.cozy,
            include_usage=bool(options and options.include_usage),
        )
        events = await self._read(api.header_wait)
        if events and isinstance(events[0], Failed):
            raise self._fault(events[0])
        return StreamedAnswer(
            self.reader, chunks, events, self.watch, api=api, request_id=self.request_id, began=self.began
        )

    async def _read(self, timeout: float) -> Sequence[Shown]:
        """What is new. Raises ClientGone where nobody waits for it any more."""
        events = await self.reader.read(timeout)
        if self.reader.closed:
            raise problems.ClientGone
        return events

    def _fault(self, end: Failed) -> Fault:
        """The fault of a reply that broke off. In a session the same words sent again would be said twice.

        Where only the reading broke off, the turn goes on, and who asks again is given its reply.
        """
        fault = fault_from(end.fault)
        if end.state != "unread" and self.verdict.session_id != intake.hidden_session(self.verdict.turn_id):
            fault.should_retry = False
        return fault


def about(turn_id: str, session_id: str, personality_id: str | None, ignored_messages: int) -> dict[str, Any]:
    """What every client is told of a turn, in `cozy`."""
    known: dict[str, Any] = {"turn_id": turn_id, "session_id": session_id, "personality_id": personality_id}
    return {**known, "ignored_messages": ignored_messages} if ignored_messages else known


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
