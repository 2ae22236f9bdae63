"""What we rely on in nats-py 2.16 that it does not promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from nats.aio.msg import Msg

from ops.local.embedded_nats import EmbeddedNats
from ops.runtime.bus import Bus, BusUnavailable
from tests.outages import cut_off
from tests.workers.jobs import post, standing, take

MANY = 3000


@pytest.fixture
async def own_bus(nats_url: str) -> AsyncIterator[Bus]:
    """A connection that a test may break."""
    own = await Bus.connect(nats_url, "contract")
    yield own
    await own.close()


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    """A server that a test may kill."""
    server = EmbeddedNats(tmp_path)
    await server.start()
    yield server
    await server.stop()


async def test_a_listener_s_messages_take_the_short_way_and_come_in_order(own_bus: Bus) -> None:
    heard: list[bytes] = []
    everything = asyncio.Event()

    def hear(subject: str, data: bytes) -> None:
        heard.append(data)
        if len(heard) == MANY:
            everything.set()

    listener = await own_bus.listen("contract.order", hear)
    for i in range(MANY):
        await own_bus.publish("contract.order", str(i).encode())
    async with asyncio.timeout(10):
        await everything.wait()
    assert heard == [str(i).encode() for i in range(MANY)]
    assert listener._subscription._pending_queue.empty()
    await listener.close()


async def test_a_subscription_is_known_by_its_id_until_it_is_closed(own_bus: Bus) -> None:
    listener = await own_bus.listen("contract.id", lambda subject, data: None)
    sid = listener._subscription._id
    assert own_bus.client._subs[sid] is listener._subscription
    assert sid in own_bus.client.hearing
    await listener.close()
    assert sid not in own_bus.client._subs
    assert sid not in own_bus.client.hearing


async def test_other_subscriptions_go_the_ordinary_way(own_bus: Bus) -> None:
    heard = await own_bus.client.subscribe("contract.plain")
    await own_bus.publish("contract.plain", b"x", reply="back", msg_id="1")
    message = await heard.next_msg(5)
    assert (message.data, message.reply, message.headers) == (b"x", "back", {"Nats-Msg-Id": "1"})


async def test_subscriptions_are_made_again_after_a_lost_connection(own_bus: Bus, bus: Bus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    listener = await own_bus.listen("contract.again", lambda _, data: heard.put_nowait(data))
    await cut_off(own_bus)
    await own_bus.flush()
    await bus.publish("contract.again", b"x")
    async with asyncio.timeout(5):
        assert await heard.get() == b"x"
    await listener.close()


async def kill(server: EmbeddedNats, own: Bus) -> None:
    """Kill the server, and wait until its client knows."""
    gone = asyncio.Event()

    async def note() -> None:
        gone.set()

    own.client._disconnected_cb = note
    await server.kill()
    async with asyncio.timeout(10):
        await gone.wait()


async def test_what_is_published_while_the_server_is_away_is_sent_when_it_is_back(own_server: EmbeddedNats) -> None:
    own = await Bus.connect(own_server.url, "contract")
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await own.listen("contract.away", lambda _, data: heard.put_nowait(data))
    await kill(own_server, own)
    await own.publish("contract.away", b"x")
    await own_server.start()
    async with asyncio.timeout(10):
        assert await heard.get() == b"x"
    await own.close()


async def test_a_listener_closed_while_the_server_is_away_is_not_made_again(own_server: EmbeddedNats) -> None:
    own = await Bus.connect(own_server.url, "contract")
    back = asyncio.Event()

    async def note() -> None:
        back.set()

    own.on_reconnect.append(note)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    listener = await own.listen("contract.closed", lambda _, data: heard.put_nowait(data))
    await kill(own_server, own)
    await listener.close()
    await own_server.start()
    async with asyncio.timeout(10):
        await back.wait()
    with pytest.raises(BusUnavailable, match="NoResponders"):
        await own.ask("contract.closed", b"", timeout=5)
    assert heard.empty()
    await own.close()


async def flood(own: Bus, megabytes: int) -> None:
    for _ in range(megabytes):
        await own.publish("contract.flood", b"x" * (1 << 20))


async def test_an_outage_that_lasts_refuses_what_it_cannot_keep(own_server: EmbeddedNats) -> None:
    own = await Bus.connect(own_server.url, "contract")
    await kill(own_server, own)
    with pytest.raises(BusUnavailable, match="OutboundBufferLimit"):
        await flood(own, 10)
    await own_server.start()
    await own.close()


async def test_a_question_nobody_hears_is_answered_at_once(own_bus: Bus) -> None:
    with pytest.raises(nats.errors.NoRespondersError):
        await own_bus.client.request("contract.nobody", b"", timeout=60)


async def test_signs_of_life_leave_a_message_open_and_an_ack_closes_it(bus: Bus) -> None:
    await post(bus, "a")
    message = await take(bus)
    for _ in range(2):
        await message.in_progress()
    assert not message._ackd
    await message.ack()
    assert message._ackd
    with pytest.raises(nats.errors.MsgAlreadyAckdError):
        await message.nak()
    assert await standing(bus) == (0, 0)


async def test_a_message_s_reply_tells_how_often_it_was_delivered_and_where_it_lies(bus: Bus) -> None:
    await post(bus, "a")
    message = await take(bus)
    assert message.reply.startswith("$JS.ACK.")
    assert message.metadata.num_delivered == 1
    await message.nak()
    again = await take(bus)
    assert again.metadata.num_delivered == 2
    assert again.metadata.sequence.stream == message.metadata.sequence.stream


async def test_after_a_flush_all_that_was_sent_was_seen_and_all_that_came_was_heard(own_bus: Bus) -> None:
    """nats-py's own flush pings ahead of what is pending; ours must not."""
    heard: list[bytes] = []
    listener = await own_bus.listen("contract.flush", lambda _, data: heard.append(data))
    for i in range(MANY):
        await own_bus.publish("contract.flush", str(i).encode())
    await own_bus.flush()
    assert len(heard) == MANY
    await listener.close()


async def test_what_came_before_an_unsubscribing_is_heard_out(own_bus: Bus) -> None:
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    subscription = await own_bus.client.subscribe("contract.leave", cb=hear)
    for i in range(MANY):
        await own_bus.publish("contract.leave", str(i).encode())
    await own_bus.client._send_unsubscribe(subscription._id)
    await own_bus.publish("contract.leave", b"too late")
    await own_bus.flush()
    await subscription._pending_queue.join()
    await subscription.unsubscribe()
    assert heard == [str(i).encode() for i in range(MANY)]
    assert subscription._id not in own_bus.client._subs


async def test_every_inbox_is_another(own_bus: Bus) -> None:
    assert len({own_bus.client.new_inbox() for _ in range(100)}) == 100
