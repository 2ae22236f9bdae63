"""Reading back what a stream has of one subject."""

from __future__ import annotations

import pytest

from ops.runtime import replay as replaying
from ops.runtime.bus import Bus, BusUnavailable
from ops.runtime.replay import replay
from schemas import subjects
from schemas.ids import new_id
from schemas.streams import REPLIES


async def stored(bus: Bus, count: int) -> str:
    """A subject with so many messages, other subjects' between them."""
    subject, other = subjects.reply(0, new_id()), subjects.reply(0, new_id())
    for i in range(count):
        await bus.publish(subject, b"%d" % i)
        await bus.publish(other, b"other")
    await bus.store(other, b"and a receipt, so that all is there", msg_id=None)
    return subject


async def read(bus: Bus, subject: str, start: int = 1, stream: str = REPLIES.name) -> list[tuple[int, bytes]]:
    return [found async for found in replay(bus, stream, subject, start)]


async def test_what_is_stored_is_read_in_order_with_its_place(bus: Bus) -> None:
    found = await read(bus, await stored(bus, 5))
    assert [data for _, data in found] == [b"0", b"1", b"2", b"3", b"4"]
    places = [place for place, _ in found]
    assert places == sorted(places)
    assert len(set(places)) == 5


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9])
async def test_batches_are_read_one_after_the_other(bus: Bus, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "BATCH", 4)
    found = await read(bus, await stored(bus, count))
    assert [data for _, data in found] == [b"%d" % i for i in range(count)]


async def test_reading_begins_where_it_is_told_to(bus: Bus) -> None:
    subject = await stored(bus, 5)
    places = [place for place, _ in await read(bus, subject)]
    assert [place for place, _ in await read(bus, subject, start=places[2])] == places[2:]
    assert [place for place, _ in await read(bus, subject, start=places[2] + 1)] == places[3:]
    assert await read(bus, subject, start=places[4] + 1) == []


async def test_what_nobody_has_said_is_nothing(bus: Bus) -> None:
    assert await read(bus, subjects.reply(0, new_id())) == []


async def test_a_large_message_is_read_whole(bus: Bus) -> None:
    subject = subjects.reply(0, new_id())
    for size in (3_000_000, 1, 3_000_000):
        await bus.store(subject, b"x" * size, msg_id=None)
    assert [len(data) for _, data in await read(bus, subject)] == [3_000_000, 1, 3_000_000]


async def test_a_stream_that_is_not_there_is_unavailable(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "WAIT_SECONDS", 0.1)
    with pytest.raises(BusUnavailable):
        await read(bus, "reply.0.x", stream="NOWHERE")


async def test_a_reader_that_stops_early_leaves_nothing_behind(bus: Bus) -> None:
    subject = await stored(bus, 20)
    before = len(bus.client._subs)
    reading = replay(bus, REPLIES.name, subject)
    async for _ in reading:
        break
    await reading.aclose()  # type: ignore[attr-defined]
    assert len(bus.client._subs) == before
