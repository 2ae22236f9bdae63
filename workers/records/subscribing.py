"""Hears questions on the bus and sends the answers, through FastStream."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import structlog
from faststream import BaseMiddleware
from faststream.nats import NatsBroker, NatsMessage
from nats.errors import Error as NatsError

from ops.runtime import metrics
from schemas import codec, subjects
from schemas.faults import EngineInternal
from schemas.records import Answer
from workers.records.answers import answer
from workers.records.feed import feed_all
from workers.records.handlers import Handler

log = structlog.get_logger()

QUEUE = "records"
"""Of all records workers one gets the question."""
AT_ONCE = 256
"""Questions of a kind in hand. The database pool is the real limit; here they wait for it with their time running."""
ENVELOPE_BYTES = 1024
"""What headers add to an answer."""


class Answering(BaseMiddleware[Any, Any]):
    """Makes an answer of what a handler gives or raises; counts it; takes note of one that could not be sent."""

    async def consume_scope(self, call_next: Any, msg: Any) -> bytes:
        question = _question_of(msg)
        began = time.perf_counter()
        answered = await answer(question, lambda: call_next(msg))
        outcome = answered.fault.code if answered.fault else "answered"
        seconds = time.perf_counter() - began
        metrics.record_answered(question, outcome, seconds)
        log.debug("answered", question=question, outcome=outcome, latency_ms=round(seconds * 1000, 1))
        return _fitting(question, codec.encode(answered), msg.raw_message._client.max_payload)

    async def publish_scope(self, call_next: Any, cmd: Any) -> Any:
        try:
            return await call_next(cmd)
        except NatsError as error:
            # Whoever asked hears nothing and answers 503 when its time is over.
            log.warning("answer_not_sent", error=type(error).__name__)
            metrics.record_not_sent()
            return None


def subscribe(broker: NatsBroker, handlers: Mapping[type[Any], Handler], at_once: int = AT_ONCE) -> None:
    """Answer questions of these kinds as soon as the broker starts; it stops by answering what it has heard."""
    broker.add_middleware(Answering)
    subscribers = []
    for kind, handle in handlers.items():
        subscriber = broker.subscriber(subjects.record_query(kind.__name__), queue=QUEUE, decoder=_decoder(kind))
        subscriber(handle)
        subscribers.append(subscriber)
    feed_all(subscribers, QUEUE, at_once)


def _decoder(kind: type[Any]) -> Any:
    async def decode(message: NatsMessage) -> Any:
        return codec.decode(message.raw_message.data, kind)

    return decode


def _question_of(message: Any) -> str:
    subject: str = message.raw_message.subject
    return subject.rpartition(".")[2]


def _fitting(question: str, data: bytes, max_payload: int) -> bytes:
    if len(data) + ENVELOPE_BYTES <= max_payload:
        return data
    log.error("answer_too_large", question=question, bytes=len(data))
    return codec.encode(Answer(fault=EngineInternal("The answer is too large.").record))
