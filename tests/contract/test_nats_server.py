"""What we rely on in the NATS server: what it stores, in which order it tells, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, PersistMode, RePublish, RetentionPolicy, StreamConfig
from nats.js.errors import APIError, BadRequestError

from ops.runtime.bus import Bus, BusFull
from ops.runtime.replay import replay
from ops.runtime.topology import consumer_config
from schemas import subjects
from schemas.ids import new_id
from schemas.streams import MAX_ACK_PENDING, MEMORY_WRITEBACK, REPLIES, TURNS
from tests.conftest import LEASE_SECONDS
from tests.workers.jobs import STAGE, post, standing, take

SMALL = "CONTRACT_small"


@pytest.fixture
async def jetstream(bus: Bus) -> JetStreamContext:
    return bus.client.jetstream(timeout=5)


@pytest.fixture
async def small(jetstream: JetStreamContext) -> AsyncIterator[str]:
    """A subject whose stream holds little, refuses more, and tells on what it has stored."""
    await jetstream.add_stream(
        StreamConfig(
            name=SMALL,
            subjects=["contract.small.*"],
            retention=RetentionPolicy.WORK_QUEUE,
            discard=DiscardPolicy.NEW,
            max_bytes=1000,
            republish=RePublish(src="contract.small.*", dest="contract.told.{{wildcard(1)}}"),
        )
    )
    yield "contract.small.x"
    await jetstream.delete_stream(SMALL)


async def heard_on(bus: Bus, subject: str) -> asyncio.Queue[bytes]:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await bus.listen(subject, lambda _, data: heard.put_nowait(data))
    return heard


async def test_frames_are_told_on_in_the_order_in_which_they_are_stored(bus: Bus, nats_url: str) -> None:
    turn_id, count = new_id(), 500
    heard = await heard_on(bus, subjects.live(0, turn_id))
    await bus.flush()
    writers = [await Bus.connect(nats_url, f"writer-{i}") for i in range(2)]

    async def write(writer: Bus, name: int) -> None:
        for i in range(count):
            await writer.publish(subjects.reply(0, turn_id), f"{name}.{i}".encode())
            await asyncio.sleep(0)

    await asyncio.gather(*(write(writer, name) for name, writer in enumerate(writers)))
    async with asyncio.timeout(10):
        live = [await heard.get() for _ in range(2 * count)]
    # What was told on has been stored: no receipt is needed.
    stored = [data async for _, data in replay(bus, REPLIES.name, subjects.reply(0, turn_id))]
    assert live == stored
    for name in range(2):
        assert [data for data in live if data.startswith(f"{name}.".encode())] == [
            f"{name}.{i}".encode() for i in range(count)
        ]
    for writer in writers:
        await writer.close()


async def fill(bus: Bus, subject: str) -> None:
    for _ in range(100):
        await bus.store(subject, b"x" * 100, msg_id=None)


async def test_a_full_stream_refuses_with_its_code_and_takes_again_when_drained(
    bus: Bus, jetstream: JetStreamContext, small: str
) -> None:
    with pytest.raises(BusFull, match="10077"):
        await fill(bus, small)
    await jetstream.purge_stream(SMALL)
    await bus.store(small, b"x" * 100, msg_id=None)


async def test_what_a_stream_refuses_no_reader_sees(bus: Bus, jetstream: JetStreamContext, small: str) -> None:
    heard = await heard_on(bus, "contract.told.x")
    with pytest.raises(BusFull):
        await fill(bus, small)
    await bus.flush()
    assert heard.qsize() == (await jetstream.stream_info(SMALL)).state.messages > 0


async def test_a_message_id_that_the_stream_remembers_is_stored_once(bus: Bus) -> None:
    subject = subjects.turn_event(subjects.TURN_COMPLETED, 0)
    first, again, other = [await bus.store(subject, b"x", msg_id=each) for each in ("one", "one", "two")]
    assert (first.duplicate, again.duplicate, other.duplicate) == (False, True, False)
    assert (again.seq, other.seq) == (first.seq, first.seq + 1)


async def test_a_receipt_for_a_frame_says_where_it_lies(bus: Bus) -> None:
    subject = subjects.reply(0, new_id())
    receipts = [await bus.store(subject, b"%d" % i, msg_id=None) for i in range(3)]
    stored = [(sequence, data) async for sequence, data in replay(bus, REPLIES.name, subject)]
    assert stored == [(receipt.seq, b"%d" % i) for i, receipt in enumerate(receipts)]


async def test_a_receipt_means_that_all_that_was_published_before_is_stored(bus: Bus) -> None:
    """Without a receipt it is only on its way: a fence is stored behind everything that came before it."""
    for _ in range(5):
        subject = subjects.reply(0, new_id())
        for i in range(300):
            await bus.publish(subject, b"%d" % i * 100)
        fence = await bus.store(subject, b"fence", msg_id=None)
        stored = [sequence async for sequence, _ in replay(bus, REPLIES.name, subject)]
        assert len(stored) == 301
        assert stored[-1] == fence.seq


async def test_a_work_queue_forgets_what_is_acknowledged(bus: Bus, jetstream: JetStreamContext) -> None:
    await post(bus, "a")
    await (await take(bus)).ack_sync()
    assert (await jetstream.stream_info(TURNS.name)).state.messages == 0


async def test_a_work_queue_has_one_consumer_a_subject(jetstream: JetStreamContext) -> None:
    rival = consumer_config(MEMORY_WRITEBACK, LEASE_SECONDS)
    rival.durable_name = "rival"
    with pytest.raises(BadRequestError):
        await jetstream.add_consumer(TURNS.name, rival)


async def test_acks_are_not_fenced(bus: Bus, jetstream: JetStreamContext) -> None:
    """A dead owner that wakes up deletes the new owner's message: so a fenced worker settles nothing."""
    await jetstream.add_consumer(TURNS.name, consumer_config(MEMORY_WRITEBACK, 0.2))
    try:
        await post(bus, "a")
        old = await take(bus)
        new = await take(bus)
        assert new.metadata.num_delivered == 2
        await old.ack_sync()
        assert await standing(bus) == (0, 0)
    finally:
        await jetstream.add_consumer(TURNS.name, consumer_config(MEMORY_WRITEBACK, LEASE_SECONDS))


async def test_a_message_is_delivered_as_often_as_it_takes(bus: Bus) -> None:
    await post(bus, "a")
    for tries in range(1, 13):
        message = await take(bus)
        assert message.metadata.num_delivered == tries
        await message.nak()


async def test_a_consumer_is_as_we_ask_for_it(jetstream: JetStreamContext) -> None:
    config = (await jetstream.consumer_info(TURNS.name, STAGE)).config
    assert (config.max_deliver, config.max_ack_pending, config.ack_wait) == (-1, MAX_ACK_PENDING, LEASE_SECONDS)


async def test_replies_are_stored_lazily_and_turns_are_not(jetstream: JetStreamContext) -> None:
    modes = {name: (await jetstream.stream_info(name)).config.persist_mode for name in (REPLIES.name, TURNS.name)}
    assert modes == {REPLIES.name: PersistMode.ASYNC, TURNS.name: None}


async def test_a_request_that_runs_out_says_what_it_will_not_send_any_more(bus: Bus) -> None:
    inbox = bus.client.new_inbox()
    heard = await bus.client.subscribe(inbox)
    body = {"batch": 5, "expires": int(0.2e9)}
    await post(bus, "a")
    question = f"$JS.API.CONSUMER.MSG.NEXT.{TURNS.name}.{STAGE}"
    await bus.client.publish(question, msgspec.json.encode(body), reply=inbox)
    message = await heard.next_msg(5)
    assert message.reply.startswith("$JS.ACK.")
    status = await heard.next_msg(5)
    assert status.reply == ""
    assert status.headers is not None
    assert (status.headers["Status"], status.headers["Nats-Pending-Messages"]) == ("408", "4")
    await message.ack()


async def test_a_request_that_waits_is_given_signs_of_life(bus: Bus) -> None:
    inbox = bus.client.new_inbox()
    heard = await bus.client.subscribe(inbox)
    body = {"batch": 1, "expires": int(2e9), "idle_heartbeat": int(0.1e9)}
    question = f"$JS.API.CONSUMER.MSG.NEXT.{TURNS.name}.{STAGE}"
    await bus.client.publish(question, msgspec.json.encode(body), reply=inbox)
    status = await heard.next_msg(5)
    assert status.headers is not None
    assert status.headers["Status"] == "100"
    await heard.unsubscribe()


async def test_a_stream_that_does_not_exist_has_no_receipts(bus: Bus, jetstream: JetStreamContext) -> None:
    with pytest.raises(APIError):
        await jetstream.stream_info("CONTRACT_nowhere")
