"""The bus: an outage is a pause and never a silence."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.js.api import StreamConfig
from structlog.testing import capture_logs

from ops.local.embedded_nats import EmbeddedNats
from ops.runtime.bus import Bus, BusUnavailable, TooLarge
from tests.outages import cut_off

STREAM = "TEST_bus"


@pytest.fixture
async def own(nats_url: str) -> AsyncIterator[Bus]:
    """A connection that a test may break."""
    own = await Bus.connect(nats_url, "own")
    yield own
    await own.close()


@pytest.fixture
async def other(nats_url: str) -> AsyncIterator[Bus]:
    """Somebody else's."""
    other = await Bus.connect(nats_url, "other")
    yield other
    await other.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    """A server that a test may kill."""
    server = EmbeddedNats(tmp_path)
    await server.start()
    yield server
    await server.stop()


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def hear(self, subject: str, data: bytes) -> None:
        self.heard.put_nowait((subject, data))

    async def next(self) -> tuple[str, bytes]:
        async with asyncio.timeout(5):
            return await self.heard.get()


async def test_what_is_said_is_heard_by_everybody_who_listens(own: Bus, other: Bus) -> None:
    ears = [Ear(), Ear()]
    for bus, ear in zip((own, other), ears, strict=True):
        await bus.listen("test.*", ear.hear)
        await bus.flush()
    await own.publish("test.a", b"x")
    assert [await ear.next() for ear in ears] == [("test.a", b"x")] * 2


async def test_of_a_queue_one_hears(own: Bus, other: Bus) -> None:
    ears = [Ear(), Ear()]
    for bus, ear in zip((own, other), ears, strict=True):
        await bus.listen("test.queue", ear.hear, queue="workers")
        await bus.flush()
    for _ in range(20):
        await own.publish("test.queue", b"x")
    await own.flush()
    await other.flush()
    assert sum(ear.heard.qsize() for ear in ears) == 20


async def test_who_has_closed_its_ear_hears_no_more(own: Bus, other: Bus) -> None:
    ear = Ear()
    listener = await own.listen("test.closed", ear.hear)
    await own.flush()
    await listener.close()
    await own.flush()
    with pytest.raises(BusUnavailable, match="NoResponders"):
        await other.ask("test.closed", b"", timeout=5)
    assert ear.heard.empty()
    await listener.close()


async def test_a_listener_that_breaks_does_not_make_the_others_deaf(own: Bus) -> None:
    def breaks(subject: str, data: bytes) -> None:
        raise LookupError("a person's words")

    ear = Ear()
    await own.listen("test.broken", breaks)
    await own.listen("test.broken", ear.hear)
    with capture_logs() as logs:
        for _ in range(2):
            await own.publish("test.broken", b"x")
            await ear.next()
    assert [line["event"] for line in logs] == ["listener_failed"] * 2
    assert "words" not in str(logs)


async def test_a_question_is_answered(own: Bus, other: Bus) -> None:
    questions = await other.client.subscribe("test.question")
    await other.flush()
    asking = asyncio.create_task(own.ask("test.question", b"how?", timeout=5))
    question = await questions.next_msg(5)
    assert question.data == b"how?"
    await question.respond(b"so")
    assert await asking == b"so"


async def test_a_question_nobody_is_there_for_is_refused_at_once(own: Bus) -> None:
    with pytest.raises(BusUnavailable, match="NoResponders"):
        await own.ask("test.nobody", b"", timeout=60)


async def test_a_question_that_is_not_answered_in_time_is_given_up(own: Bus) -> None:
    await own.listen("test.silent", lambda subject, data: None)
    with pytest.raises(BusUnavailable, match="Timeout"):
        await own.ask("test.silent", b"", timeout=0.05)


@pytest.fixture
async def stream(own: Bus) -> AsyncIterator[str]:
    """A subject that a stream keeps."""
    jetstream = own.client.jetstream()
    await jetstream.add_stream(StreamConfig(name=STREAM, subjects=["test.kept"]))
    yield "test.kept"
    await jetstream.delete_stream(STREAM)


async def test_what_is_stored_has_a_receipt(own: Bus, stream: str) -> None:
    receipts = [await own.store(stream, b"x", msg_id=id) for id in ("a", "b", "a")]
    assert [(receipt.stream, receipt.seq, receipt.duplicate) for receipt in receipts] == [
        (STREAM, 1, False),
        (STREAM, 2, False),
        (STREAM, 1, True),
    ]


async def test_what_no_stream_keeps_is_given_up_after_its_budget(own: Bus) -> None:
    with pytest.raises(BusUnavailable):
        await own.store("test.unkept", b"x", msg_id=None, budget=0.1)


async def test_what_is_stored_before_its_stream_is_there_waits_for_it(own: Bus) -> None:
    storing = asyncio.create_task(own.store("test.kept", b"x", msg_id="a"))
    await own.flush()
    jetstream = own.client.jetstream()
    await jetstream.add_stream(StreamConfig(name=STREAM, subjects=["test.kept"]))
    assert (await storing).seq == 1
    await jetstream.delete_stream(STREAM)


async def test_what_is_stored_while_the_server_is_away_is_there_once_when_it_is_back(server: EmbeddedNats) -> None:
    own = await Bus.connect(server.url, "own")
    jetstream = own.client.jetstream()
    await jetstream.add_stream(StreamConfig(name=STREAM, subjects=["test.kept"]))
    await server.kill()
    storing = asyncio.create_task(own.store("test.kept", b"x", msg_id="a"))
    await server.start()
    await storing
    assert (await jetstream.stream_info(STREAM)).state.messages == 1
    await own.close()


async def test_an_answer_that_is_no_receipt_is_not_taken_for_one(own: Bus, other: Bus) -> None:
    """A subject that no stream keeps, but somebody answers on."""
    questions = await other.client.subscribe("test.answered")
    await other.flush()
    storing = asyncio.create_task(own.store("test.answered", b"x", msg_id=None, budget=0.1))
    await (await questions.next_msg(5)).respond(b"hello")
    with pytest.raises(BusUnavailable, match="DecodeError"):
        await storing


async def test_after_an_outage_what_must_be_done_again_is_done_in_order(own: Bus) -> None:
    done: list[str] = []

    async def first() -> None:
        done.append("first")
        raise LookupError("words")

    async def second() -> None:
        done.append("second")

    own.on_reconnect += [first, second]
    with capture_logs() as logs:
        await cut_off(own)
    assert (done, own.reconnects) == (["first", "second"], 1)
    failed = [line for line in logs if line["event"] == "bus_reconnect_step_failed"]
    assert len(failed) == 1
    assert "words" not in str(failed)


async def test_what_is_heard_before_an_outage_is_heard_after_it(own: Bus, other: Bus) -> None:
    ear = Ear()
    await own.listen("test.outage", ear.hear)
    await cut_off(own)
    await own.flush()
    await other.publish("test.outage", b"x")
    assert await ear.next() == ("test.outage", b"x")


async def test_an_outage_is_told_once_in_a_while_and_not_at_each_attempt(own: Bus) -> None:
    with capture_logs() as logs:
        for _ in range(50):
            await own._on_error(ConnectionRefusedError())
    assert [line["event"] for line in logs] == ["bus_error"]


async def test_one_of_several_servers_is_enough(nats_url: str) -> None:
    own = await Bus.connect(f"nats://127.0.0.1:9, {nats_url}", "own")
    assert own.connected
    await own.close()


async def test_connecting_waits_until_the_server_is_there(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path)
    url = await server.start()
    await server.stop()
    connecting = asyncio.create_task(Bus.connect(url, "own"))
    await asyncio.sleep(0)
    await server.start()
    async with asyncio.timeout(10):
        own = await connecting
    await own.close()
    await server.stop()


async def test_who_is_closed_says_nothing_more(nats_url: str) -> None:
    own = await Bus.connect(nats_url, "own")
    ear = Ear()
    await own.listen("test.last", ear.hear)
    await own.publish("test.last", b"x")
    await own.close()
    assert not own.connected
    assert ear.heard.qsize() == 1
    with pytest.raises(BusUnavailable):
        await own.publish("test.last", b"x")
    await own.close()


async def test_who_leaves_while_the_server_is_away_leaves_all_the_same(server: EmbeddedNats) -> None:
    own = await Bus.connect(server.url, "own")
    await server.kill()
    await own.publish("test.late", b"x")
    async with asyncio.timeout(10):
        await own.close()


async def test_what_is_above_the_server_s_limit_is_refused_at_once(own: Bus) -> None:
    """It is no outage: waiting, and another try, would change nothing."""
    large = bytes(own.client.max_payload + 1)
    async with asyncio.timeout(1):
        for sent in (own.publish("t", large), own.ask("t", large, 5), own.store("t", large, msg_id=None)):
            with pytest.raises(TooLarge):
                await sent


LOST_FOR_GOOD = """
import asyncio, sys
from ops.runtime.bus import Bus

async def main():
    bus = await Bus.connect(sys.argv[1], "doomed")
    await bus.client.close()
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_process_whose_bus_is_closed_for_good_ends(nats_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LOST_FOR_GOOD, nats_url), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        said, _ = await process.communicate()
    assert process.returncode == 70
    assert b"bus_closed_for_good" in said
