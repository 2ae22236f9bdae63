"""Makes the NATS server match `schemas/streams.py`. Safe to run any number of times, by several processes at once."""

from __future__ import annotations

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
from nats.js.errors import NotFoundError

from ops.runtime.bus import Bus
from schemas.streams import CONSUMERS, MAX_ACK_PENDING, STREAMS, TURNS, ConsumerSpec, StreamSpec


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
    """Create or update every stream and consumer; names what was created. Raises nats errors."""
    js = bus.client.jetstream(timeout=5)
    made = []
    for spec in STREAMS:
        if await _ensure_stream(js, stream_config(spec, replicas)):
            made.append(spec.name)
    for consumer in CONSUMERS:
        # Creating a consumer that exists with the same settings, or with ones that may change, updates it.
        await js.add_consumer(TURNS.name, consumer_config(consumer, lease))
    return made


async def _ensure_stream(js: JetStreamContext, config: StreamConfig) -> bool:
    assert config.name
    try:
        await js.stream_info(config.name)
    except NotFoundError:
        await js.add_stream(config)
        return True
    await js.update_stream(config)
    return False
