"""Makes the NATS server match `schemas/streams.py`. Safe to run any number of times, by several processes at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import msgspec
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    PersistMode,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

from ops.runtime.bus import Bus
from schemas.streams import CONSUMERS, MAX_ACK_PENDING, STREAMS, TURNS, ConsumerSpec, StreamSpec

CORRUPT_CONSUMER = 10012
"""JetStream's code where a consumer's store cannot be made."""
ANSWER_SECONDS = 30
"""A stream that is being given copies does not answer for about ten."""


class NotTaken(Exception):
    """The server did not take a stream or consumer as it should be. The message names it and has the server's words."""


def stream_config(spec: StreamSpec, replicas: int) -> StreamConfig:
    """The server's form of a stream."""
    republish = None
    if spec.republish_from:
        republish = RePublish(src=spec.republish_from, dest=spec.republish_to)
    return StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=RetentionPolicy.WORK_QUEUE if spec.work_queue else RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW if spec.refuse_when_full else DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_age=spec.max_age,
        max_bytes=spec.max_bytes,
        num_replicas=replicas,
        duplicate_window=spec.duplicate_window,
        allow_direct=True,
        republish=republish,
        # A cluster has its copies instead; the server refuses the two together.
        persist_mode=PersistMode.ASYNC if spec.synced_lazily and replicas == 1 else None,
    )


def consumer_config(spec: ConsumerSpec, lease: float) -> ConsumerConfig:
    """The server's form of a stage's consumer: redelivered when `lease` seconds pass without a sign of life."""
    return ConsumerConfig(
        durable_name=spec.stage,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=lease,
        max_deliver=-1,
        max_ack_pending=MAX_ACK_PENDING,
        filter_subject=spec.filter_subject,
    )


async def ensure(bus: Bus, *, lease: float, replicas: int = 1) -> list[str]:
    """Create or update every stream and consumer; names what was created, or made anew. Raises NotTaken.

    More replicas than before are added in place, as NATS does it: for some ten seconds no turn moves.
    """
    js = bus.client.jetstream(timeout=ANSWER_SECONDS)
    made = []
    for spec in STREAMS:
        with _naming(spec.name):
            if await _ensure_stream(js, stream_config(spec, replicas)):
                made.append(spec.name)
    with _naming(f"the consumers of {TURNS.name}"):
        return made + await _make_consumers(js, CONSUMERS, lease, replicas)


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        raise NotTaken(f"{what}: {error.description or 'JetStream does not answer'} ({error.err_code})") from error
    except nats.errors.TimeoutError as error:
        raise NotTaken(f"{what}: no answer within {ANSWER_SECONDS} s") from error


async def restore(bus: Bus, *, lease: float, replicas: int = 1) -> list[str]:
    """Make again what is missing, as after a server that lost its store; names it. Four questions where all is well.

    What is there is left as it is: another version of us may have made it. Raises nats errors and BusUnavailable.
    """
    js = bus.client.jetstream(timeout=2)
    streams = await _names(bus, "STREAM.NAMES", "streams")
    made = [spec.name for spec in STREAMS if spec.name not in streams]
    for spec in STREAMS:
        if spec.name in made:
            await js.add_stream(stream_config(spec, replicas))
    consumers = await _names(bus, f"CONSUMER.NAMES.{TURNS.name}", "consumers")
    missing = [consumer for consumer in CONSUMERS if consumer.stage not in consumers]
    made += [consumer.stage for consumer in missing]
    return made + await _make_consumers(js, missing, lease, replicas)


async def _make_consumers(
    js: JetStreamContext, consumers: Sequence[ConsumerSpec], lease: float, replicas: int
) -> list[str]:
    """Create or update them; names the work queue where it had to be made anew.

    After a power cut the server finds of its consumers and its messages what had been synced of each. What is left of
    a consumer can be in the way of making it again, or be ahead of the stream: then it would pass over new messages,
    and hand out others whatever their subject. Only the stream's end clears that away, and PostgreSQL has what it held:
    turns are driven again from there.
    """
    try:
        for consumer in consumers:
            # Creating a consumer that exists with the same settings, or with ones that may change, updates it.
            await js.add_consumer(TURNS.name, consumer_config(consumer, lease))
    except APIError as error:
        if error.err_code != CORRUPT_CONSUMER:
            raise
    else:
        if not await _are_ahead(js):
            return []
    with contextlib.suppress(NotFoundError):  # another process was quicker
        await js.delete_stream(TURNS.name)
    await js.add_stream(stream_config(TURNS, replicas))
    for consumer in CONSUMERS:
        await js.add_consumer(TURNS.name, consumer_config(consumer, lease))
    return [TURNS.name]


async def _are_ahead(js: JetStreamContext) -> bool:
    """Whether a consumer has delivered what the stream has never had."""
    consumers = await js.consumers_info(TURNS.name)
    last = (await js.stream_info(TURNS.name)).state.last_seq
    return any(consumer.delivered and consumer.delivered.stream_seq > last for consumer in consumers)


async def _names(bus: Bus, question: str, answer: str) -> set[str]:
    return set(msgspec.json.decode(await bus.ask(f"$JS.API.{question}", b"", timeout=2)).get(answer) or ())


async def _ensure_stream(js: JetStreamContext, config: StreamConfig) -> bool:
    assert config.name
    try:
        there = (await js.stream_info(config.name)).config
    except NotFoundError:
        await js.add_stream(config)
        return True
    if there.persist_mode == config.persist_mode:
        await js.update_stream(config)
        return False
    # The one thing that differs between a server alone and a cluster, and the one that no stream changes in place. What
    # was read from it is sent again by who wrote it, and what has ended is in PostgreSQL.
    with contextlib.suppress(NotFoundError):  # another process was quicker
        await js.delete_stream(config.name)
    await js.add_stream(config)
    return True
