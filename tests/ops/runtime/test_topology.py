"""Streams and consumers as data, and the server made to match."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType

from ops.drills.cluster import running_cluster
from ops.drills.nats_cluster import SIZE
from ops.local.embedded_nats import EmbeddedNats
from ops.runtime import topology
from ops.runtime.bus import Bus
from ops.runtime.topology import consumer_config, ensure, restore, stream_config
from schemas import subjects
from schemas.streams import (
    CONSUMERS,
    DEAD_LETTERS,
    GENERATION,
    MAX_ACK_PENDING,
    REPLIES,
    STREAMS,
    TURNS,
    ConsumerSpec,
)

NOTHING_DELIVERED = 8
"""Bytes of a consumer's state that has delivered nothing."""
NAMES = [stream.name for stream in STREAMS]


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedNats]:
    """A server with nothing on it."""
    server = EmbeddedNats(Path(tmp_path_factory.mktemp("nats")))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def empty(server: EmbeddedNats) -> AsyncIterator[Bus]:
    """A connection to a server without streams."""
    own = await Bus.connect(server.url, "topology")
    jetstream = own.client.jetstream()
    for stream in await jetstream.streams_info():
        await jetstream.delete_stream(str(stream.config.name))
    yield own
    await own.close()


def jetstream_of(bus: Bus) -> JetStreamContext:
    return bus.client.jetstream(timeout=5)


async def names_on(bus: Bus) -> list[str]:
    return sorted(str(stream.config.name) for stream in await jetstream_of(bus).streams_info())


async def test_on_an_empty_server_everything_is_made(empty: Bus) -> None:
    assert await ensure(empty, lease=7) == NAMES
    assert await names_on(empty) == sorted(NAMES)
    consumers = await jetstream_of(empty).consumers_info(TURNS.name)
    assert {consumer.name for consumer in consumers} == {spec.stage for spec in CONSUMERS}
    assert {consumer.config.ack_wait for consumer in consumers} == {7}


async def test_what_is_missing_is_made_again_and_what_is_there_is_left_as_it_is(empty: Bus) -> None:
    await ensure(empty, lease=7)
    jetstream = jetstream_of(empty)
    await jetstream.delete_stream(REPLIES.name)
    await jetstream.delete_consumer(TURNS.name, CONSUMERS[1].stage)
    await empty.store("turn.requested.0", b"kept", msg_id=None)
    assert await restore(empty, lease=9) == [REPLIES.name, CONSUMERS[1].stage]
    assert await names_on(empty) == sorted(NAMES)
    waits = {each.name: each.config.ack_wait for each in await jetstream.consumers_info(TURNS.name)}
    assert waits == {spec.stage: 9 if spec is CONSUMERS[1] else 7 for spec in CONSUMERS}
    assert (await jetstream.stream_info(TURNS.name)).state.messages == 1
    assert await restore(empty, lease=9) == []


async def test_an_empty_server_gets_everything_whoever_comes_first(empty: Bus) -> None:
    await asyncio.gather(*(restore(empty, lease=7) for _ in range(4)))
    assert await names_on(empty) == sorted(NAMES)
    assert await restore(empty, lease=7) == []


async def test_twice_changes_nothing(empty: Bus) -> None:
    await ensure(empty, lease=7)
    jetstream = jetstream_of(empty)
    await empty.store("turn.requested.0", b"x", msg_id="a")
    before = [(await jetstream.stream_info(name)).config for name in NAMES]
    assert await ensure(empty, lease=7) == []
    assert [(await jetstream.stream_info(name)).config for name in NAMES] == before
    assert (await jetstream.stream_info(TURNS.name)).state.messages == 1


async def test_what_may_change_is_changed_in_place(empty: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    await ensure(empty, lease=7)
    larger = [msgspec.structs.replace(spec, max_bytes=spec.max_bytes * 2) for spec in STREAMS]
    monkeypatch.setattr(topology, "STREAMS", larger)
    assert await ensure(empty, lease=9) == []
    jetstream = jetstream_of(empty)
    assert (await jetstream.stream_info(TURNS.name)).config.max_bytes == TURNS.max_bytes * 2
    assert {consumer.config.ack_wait for consumer in await jetstream.consumers_info(TURNS.name)} == {9}


async def test_streams_with_one_copy_get_more_and_the_work_queue_keeps_what_it_holds() -> None:
    async with running_cluster() as cluster:
        bus = await Bus.connect(cluster.url, "topology")
        try:
            await ensure(bus, lease=7)
            await bus.store("turn.requested.0", b"kept", msg_id=None)
            assert await ensure(bus, lease=7, replicas=SIZE) == [REPLIES.name]
            infos = {name: await jetstream_of(bus).stream_info(name) for name in NAMES}
            assert {info.config.num_replicas for info in infos.values()} == {SIZE}
            assert infos[TURNS.name].state.messages == 1
        finally:
            await bus.close()


async def test_several_at_once_make_everything_once(empty: Bus) -> None:
    made = await asyncio.gather(*(ensure(empty, lease=7) for _ in range(3)))
    assert {name for names in made for name in names} == set(NAMES)
    assert await names_on(empty) == sorted(NAMES)


async def test_work_that_waits_is_not_lost_when_the_lease_changes(empty: Bus) -> None:
    await ensure(empty, lease=7)
    await empty.store("turn.completed.0", b"x", msg_id=None)
    await ensure(empty, lease=9)
    info = await jetstream_of(empty).consumer_info(TURNS.name, "memory_writeback")
    assert info.num_pending == 1


@pytest.mark.parametrize("mend", [ensure, restore])
async def test_a_work_queue_whose_consumers_a_power_cut_left_in_pieces_is_made_anew(
    tmp_path: Path, mend: Callable[..., Awaitable[list[str]]]
) -> None:
    server = EmbeddedNats(tmp_path)
    await server.start()
    bus = await Bus.connect(server.url, "topology")
    await ensure(bus, lease=3)
    await bus.close()
    await server.kill()
    for part in (tmp_path / "nats").rglob(f"{TURNS.name}/obs/*/*"):
        # What ext4 keeps of a file that was not synced: nothing, or zeros.
        part.write_bytes(b"" if part.name.startswith("meta") else bytes(64))
    await server.start()
    bus = await Bus.connect(server.url, "topology")
    try:
        assert TURNS.name in await mend(bus, lease=3)
        assert len(await bus.client.jetstream().consumers_info(TURNS.name)) == len(CONSUMERS)
    finally:
        await bus.close()
        await server.stop()


@pytest.mark.parametrize("mend", [ensure, restore])
async def test_consumers_that_are_ahead_of_what_a_power_cut_left_of_their_stream_begin_anew(
    tmp_path: Path, mend: Callable[..., Awaitable[list[str]]]
) -> None:
    server = EmbeddedNats(tmp_path)
    await server.start()
    bus = await Bus.connect(server.url, "topology")
    await ensure(bus, lease=3)
    prepared = subjects.turn_event(subjects.TURN_PREPARED, 0)
    for _ in range(3):
        await bus.store(prepared, b"work", msg_id=None)
    await taken(bus, GENERATION)
    (state,) = (tmp_path / "nats").rglob(f"{TURNS.name}/obs/{GENERATION.stage}/o.dat")
    async with asyncio.timeout(10):
        while state.stat().st_size <= NOTHING_DELIVERED:  # noqa: ASYNC110 - a file rings no bell
            await asyncio.sleep(0.05)
    await bus.close()
    await server.kill()
    for part in (tmp_path / "nats").rglob(f"{TURNS.name}/**/*"):
        if part.parent.name == "msgs" or (part.parent.parent.name == "obs" and part.name.startswith("meta")):
            part.write_bytes(b"")
    await server.start()
    bus = await Bus.connect(server.url, "topology")
    try:
        await mend(bus, lease=3)
        await bus.store(prepared, b"work", msg_id=None)
        assert await taken(bus, GENERATION) == [prepared]
    finally:
        await bus.close()
        await server.stop()


async def taken(bus: Bus, spec: ConsumerSpec) -> list[str]:
    """The subjects of what a stage is given now; one of them is acknowledged."""
    pulling = await bus.client.jetstream().pull_subscribe_bind(spec.stage, TURNS.name)
    messages = await pulling.fetch(10, timeout=1)
    await messages[0].ack_sync()
    return [message.subject for message in messages]


def test_turns_are_a_queue_that_refuses_when_full_and_replies_a_log_that_forgets() -> None:
    turns, replies, dead = (stream_config(spec, 1) for spec in (TURNS, REPLIES, DEAD_LETTERS))
    assert (turns.retention, turns.discard) == (RetentionPolicy.WORK_QUEUE, DiscardPolicy.NEW)
    assert (replies.retention, replies.discard) == (RetentionPolicy.LIMITS, DiscardPolicy.OLD)
    assert dead.retention is RetentionPolicy.LIMITS
    assert {config.storage for config in (turns, replies, dead)} == {StorageType.FILE}
    assert replies.republish is not None
    assert turns.republish is dead.republish is None


@pytest.mark.parametrize(("replicas", "mode"), [(1, PersistMode.ASYNC), (3, None)])
def test_lazy_writing_is_for_a_server_alone(replicas: int, mode: PersistMode | None) -> None:
    config = stream_config(REPLIES, replicas)
    assert (config.persist_mode, config.num_replicas) == (mode, replicas)


@pytest.mark.parametrize("spec", CONSUMERS, ids=lambda spec: spec.stage)
def test_a_consumer_never_gives_up_by_itself(spec: ConsumerSpec) -> None:
    config = consumer_config(spec, 7)
    assert (config.max_deliver, config.max_ack_pending, config.durable_name) == (-1, MAX_ACK_PENDING, spec.stage)
    assert config.filter_subject == spec.filter_subject
