"""One reader of one reply: what it does where something is missing, and what it does not."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway import hearing, patience, reply_reader
from gateway.readers import Readers
from gateway.records_client import Records
from gateway.reply_reader import ReplyReader
from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.faults import EngineOverloaded, NotFound, StorageUnavailable
from schemas.records import GetReply, StoredReply
from schemas.replies import Delta, Failed, Finished
from schemas.streams import REPLIES
from tests.gateway import spoken
from tests.gateway.peers import RecordsPeer
from tests.gateway.spoken import Spoken, is_heard

Make = Callable[[Spoken], ReplyReader]


@pytest.fixture
async def desk(nats_url: str) -> AsyncIterator[RecordsPeer]:
    peer = RecordsPeer()
    await peer.open(nats_url)
    yield peer
    await peer.close()


@pytest.fixture
def readers() -> Readers:
    return Readers()


@pytest.fixture
async def make(bus: Bus, desk: RecordsPeer, readers: Readers) -> AsyncIterator[Make]:
    clock = asyncio.create_task(readers.tell_time())
    made: list[ReplyReader] = []

    def reader(of: Spoken) -> ReplyReader:
        made.append(readers.make(bus, Records(lambda: bus, 0.5), turn_id=of.turn_id, user_id="ann", shard=0))
        return made[-1]

    yield reader
    clock.cancel()
    for each in made:
        await each.close()


@pytest.fixture
async def replays(bus: Bus) -> list[bytes]:
    """Every question for a part of the stream."""
    asked: list[bytes] = []
    await bus.listen(f"$JS.API.DIRECT.GET.{REPLIES.name}", lambda subject, data: asked.append(data))
    return asked


async def all_of(reader: ReplyReader, seconds: float = 5) -> list[Any]:
    """Everything it shows, to the end."""
    shown: list[Any] = []
    async with asyncio.timeout(seconds):
        while not (shown and isinstance(shown[-1], Finished | Failed)):
            shown += await reader.read(1)
    return shown


def says(desk: RecordsPeer, made: Spoken, *, ended: bool = True) -> None:
    def answer(asked: GetReply) -> StoredReply:
        return made.stored(asked, ended=ended)

    desk.answers[GetReply] = answer


def told(desk: RecordsPeer, fault: Exception) -> None:
    def answer(asked: GetReply) -> StoredReply:
        raise fault

    desk.answers[GetReply] = answer


async def test_what_is_said_while_one_listens_is_shown_as_it_comes(bus: Bus, make: Make, replays: list[bytes]) -> None:
    made = spoken.plain()
    reader = make(made)
    await reader.open()
    await made.publish(bus)
    assert [event for event in await all_of(reader) if isinstance(event, Delta)] == made.said
    assert replays == []


async def test_a_repeat_whose_frames_are_gone_asks_storage_at_once(make: Make, desk: RecordsPeer) -> None:
    made = spoken.plain()
    says(desk, made)
    reader = make(made)
    await reader.open()
    reader.come_late()
    assert [event for event in await all_of(reader, 1) if isinstance(event, Delta)] == made.said


async def test_an_answer_that_is_final_ends_the_reading(make: Make, desk: RecordsPeer) -> None:
    told(desk, NotFound())
    reader = make(spoken.plain())
    await reader.open()
    reader.come_late()
    [end] = await all_of(reader, 1)
    assert (end.fault.code, end.state) == ("RESOURCE_NOT_FOUND", "unread")


async def test_storage_that_is_away_is_asked_again(
    make: Make, desk: RecordsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SILENCE", (0.2,))
    made = spoken.plain()
    told(desk, StorageUnavailable())
    reader = make(made)
    await reader.open()
    reader.come_late()
    assert await reader.read(0.3) == []
    says(desk, made)
    assert [event for event in await all_of(reader) if isinstance(event, Delta)] == made.said


async def test_a_reply_that_fell_silent_is_looked_for_in_storage(
    bus: Bus, make: Make, desk: RecordsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SILENCE", (0.2,))
    made = spoken.plain()
    says(desk, made)
    reader = make(made)
    await reader.open()
    await made.publish(bus, 0, 3)
    assert [event for event in await all_of(reader) if isinstance(event, Delta)] == made.said


async def test_one_lost_frame_does_not_let_every_other_read_the_stream_back(
    bus: Bus, make: Make, replays: list[bytes]
) -> None:
    made = Spoken().begin(1).say(*"abcdefghij" * 50)
    reader = make(made)
    await reader.open()
    await made.publish(bus, 0, 2)
    wanted: list[bytes] = []
    await bus.listen(subjects.wanted(made.turn_id), lambda subject, data: wanted.append(data))
    for frame in made.frames[3:]:
        await bus.publish(subjects.reply(0, made.turn_id), codec.encode(frame))
        await reader.read(0)
    shown = len(await reader.read(1))
    assert shown <= 1
    assert len(replays) <= 3
    assert 1 <= len(wanted) <= 3
    await made.heal(bus)
    end = made.finish()
    await end.publish(bus, -1)
    assert isinstance((await all_of(reader))[-1], Finished)


async def test_a_client_that_reads_slowly_holds_little_and_misses_nothing(
    bus: Bus, make: Make, replays: list[bytes]
) -> None:
    made = Spoken().begin(1).say(*(f"{i} " * 300 for i in range(2000))).finish()
    reader = make(made)
    await reader.open()
    await made.publish(bus)
    await bus.flush()
    held = sum(map(len, reader.hearing._heard))
    assert held <= hearing.BUFFERED_BYTES
    assert [event for event in await all_of(reader) if isinstance(event, Delta)] == made.said
    assert replays


async def test_after_an_outage_every_reader_looks_without_being_told_anything(
    bus: Bus, make: Make, readers: Readers, replays: list[bytes]
) -> None:
    made = spoken.plain()
    await made.publish(bus)  # while the readers' ears were deaf
    listening = [make(made) for _ in range(5)]
    for reader in listening:
        await reader.open()
    reading = [asyncio.create_task(all_of(reader)) for reader in listening]
    await asyncio.sleep(0)
    await readers.doubt()
    for each in reading:
        assert [event for event in await each if isinstance(event, Delta)] == made.said
    assert len(replays) == 5


async def test_when_many_come_at_once_the_owner_is_asked_and_the_stream_spared(
    bus: Bus, make: Make, readers: Readers, replays: list[bytes]
) -> None:
    made = spoken.plain()
    await made.publish(bus, 0, 4)
    asked = asyncio.Event()
    await bus.listen(subjects.wanted(made.turn_id), lambda subject, data: asked.set())
    async with readers._replays:  # another reads back, for as long as this takes
        readers._replays._value = 0
        reader = make(made)
        await reader.open()
        reader.come_late()
        reading = asyncio.create_task(all_of(reader))
        await asyncio.wait_for(asked.wait(), 2)
        await made.heal(bus)
        await made.publish(bus, -1)
        await bus.flush()
    assert [event for event in await reading if isinstance(event, Delta)] == made.said
    assert replays == []


async def test_a_reader_told_to_give_up_says_why(make: Make, readers: Readers) -> None:
    made = spoken.plain()
    reader = make(made)
    await reader.open()
    reading = asyncio.create_task(all_of(reader))
    await asyncio.sleep(0)
    readers.end_all()
    [end] = await reading
    assert made.turn_id in end.fault.message


async def test_a_client_that_takes_nothing_for_too_long_is_dropped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_reader, "SEND_SECONDS", 0.1)
    reader = make(spoken.plain())
    dropped = asyncio.Event()
    reader.on_stalled = dropped.set
    reader.sending_since = asyncio.get_running_loop().time()
    await asyncio.wait_for(dropped.wait(), 2)


async def test_the_reader_of_a_fresh_turn_can_be_asked_before_anybody_asks(bus: Bus, make: Make) -> None:
    made = spoken.plain()
    reader = make(made)
    await reader.open()
    async with asyncio.timeout(0.9):  # a turn's owner asks after a second
        while not await is_heard(bus, made):
            pass
    await reader.close()
    await bus.flush()
    assert not await is_heard(bus, made)


async def test_a_failure_told_from_outside_hides_no_words_from_who_comes_late(
    bus: Bus, make: Make, desk: RecordsPeer
) -> None:
    made = Spoken().begin(1).say("Some", " words").begin(2, attempt=2)
    says(desk, made, ended=False)
    await made.publish(bus)
    reader = make(made)
    await reader.open(late=True)
    assert list(reader.come_late(made.stored(GetReply(user_id="ann", turn_id=made.turn_id), ended=False))) == []
    failed = Failed(3, 0, EngineOverloaded().record)
    await bus.store(subjects.reply(0, made.turn_id), codec.encode(failed), msg_id=None)
    shown = await all_of(reader)
    assert [event for event in shown if isinstance(event, Delta)] == made.said
    assert shown[-1] == failed


async def test_who_has_seen_what_is_lost_asks_for_the_end_now_and_then(bus: Bus, make: Make, desk: RecordsPeer) -> None:
    made = Spoken().begin(1).say("Some", " words")
    told(desk, StorageUnavailable())
    reader = make(made)
    await reader.open()
    await made.publish(bus)
    async with asyncio.timeout(5):
        shown = 0
        while shown < len(made.said):
            shown += len(await reader.read(1))
    lost = Spoken().begin(2, attempt=2).say("Other").finish()
    lost.turn_id = made.turn_id
    await lost.publish(bus)
    assert await reader.read(0.4) == []
    await lost.publish(bus, -1)
    assert await reader.read(1.1) == []
    assert 1 <= desk.asked["GetReply"] <= 3
    says(desk, lost)
    [end] = await all_of(reader)
    assert (end.state, end.fault.code) == ("unread", "ENGINE_OVERLOADED")


async def test_a_reader_that_is_closed_is_gone_with_what_it_had_kept(
    bus: Bus, desk: RecordsPeer, readers: Readers
) -> None:
    of = Spoken()
    gc.disable()
    try:
        reader = readers.make(bus, Records(lambda: bus, 0.5), turn_id=of.turn_id, user_id="ann", shard=0)
        await reader.open()
        reader.on_stalled = reader.leave
        gone = weakref.ref(reader)
        await reader.close()
        del reader
        assert gone() is None
    finally:
        gc.enable()
