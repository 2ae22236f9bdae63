"""What a stream has lost of a reply is noticed and sent again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.replies import Delta, Gap, ReplyFold, Snapshot
from schemas.streams import REPLIES
from tests.workers.generation.rounds_made import frames_of, held, read_out, round_of
from workers.generation import writer as writing
from workers.generation.holes import Stock, Tally, snapshots
from workers.generation.pace import Pace
from workers.generation.writer import Piece, ReplyWriter
from workers.storage.turn_rows import Claimed

DELTAS = [Delta(1, index, "x" * (index % 7), begins=index == 1) for index in range(1, 101)]


@given(st.integers(30, 5000), st.integers(1, 100))
def test_a_snapshot_too_long_for_the_bus_is_sent_in_parts_that_fold(limit: int, seen: int) -> None:
    parts = snapshots(1, DELTAS, limit)
    assert all(len(part) <= limit or len(codec.decode(part, Snapshot).deltas) == 1 for part in parts)
    fold, shown = ReplyFold(), list[Delta]()
    for delta in DELTAS[:seen]:
        fold.feed(delta)
    for part in parts:
        shown += [each for each in fold.feed(codec.decode(part, Snapshot)) if isinstance(each, Delta)]
    assert shown == DELTAS[seen:]


def test_a_part_that_was_lost_is_a_gap() -> None:
    parts = [codec.decode(part, Snapshot) for part in snapshots(1, DELTAS, 400)]
    fold = ReplyFold()
    fold.feed(parts[0])
    with pytest.raises(Gap):
        fold.feed(parts[2])


def test_what_is_held_is_what_was_sent_or_something_is_missing() -> None:
    tally = Tally(2)
    tally.sent = 5
    assert not tally.lacks(7, 5)
    assert tally.lacks(6, 5)


def test_a_frame_of_somebody_else_s_is_not_taken_for_ours() -> None:
    tally = Tally(0)
    tally.sent = 5
    assert not tally.lacks(6, 5)
    tally.sent = 6
    assert tally.lacks(6, 6)


def test_where_nobody_counted_there_may_be_a_hole_until_it_is_healed() -> None:
    tally = Tally(None)
    tally.sent = 3
    assert tally.lacks(3, 3)
    tally.healed(11)
    assert not tally.lacks(11, 3)
    tally.sent = 4
    assert tally.lacks(11, 4)


class Replicated(Stock):
    """Counts as on a cluster: this server's stream has no copies."""

    async def held(self, subject: str) -> int | None:
        self._alone = False
        known = await super().held(subject)
        assert known is None
        info = await self._bus.client.jetstream().stream_info(REPLIES.name, subjects_filter=subject)
        return (info.state.subjects or {}).get(subject, 0)


class Lossy(Bus):
    """Drops what it is told to, as an election does: nobody hears of it."""

    drops = False

    async def publish(self, subject: str, data: bytes, *, reply: str = "", msg_id: str | None = None) -> None:
        if not self.drops:
            await super().publish(subject, data, reply=reply, msg_id=msg_id)


def lossy(bus: Bus) -> Lossy:
    return Lossy(bus.client, "lossy")


async def checked(writer: ReplyWriter) -> None:
    await writer._checkpoint()


@pytest.mark.parametrize("epoch", [1, 3])
async def test_a_frame_that_nobody_missed_yet_is_sent_again_at_the_next_checkpoint(bus: Bus, epoch: int) -> None:
    claimed, own = held(epoch=epoch), lossy(bus)
    writer = ReplyWriter(own, claimed, Pace(0), round_of(claimed).prefix, Replicated(own))
    await writer.say([Piece(0, "a")])
    await checked(writer)
    before = len(await frames_of(bus, claimed))
    await writer.say([Piece(0, "b")])
    await checked(writer)
    assert len(await frames_of(bus, claimed)) == before + 2
    own.drops = True
    await writer.say([Piece(0, "c")])
    own.drops = False
    await checked(writer)
    await writer.say([Piece(0, "d")])
    read = await read_out(bus, claimed)
    assert read.words == "abcd"
    assert read.gaps == 1  # the checkpoint itself; by then the snapshot follows
    after = len(await frames_of(bus, claimed))
    await checked(writer)
    assert len(await frames_of(bus, claimed)) == after + 1


async def test_a_stream_without_copies_is_not_asked_twice(bus: Bus) -> None:
    stock, asked = Stock(bus), []

    async def note(subject: str, data: bytes, timeout: float) -> bytes:
        asked.append(subject)
        return await Bus.ask(bus, subject, data, timeout)

    stock._bus = type("Asking", (), {"ask": staticmethod(note)})()
    assert await stock.held(subjects.reply(0, "x")) is None
    assert await stock.held(subjects.reply(0, "x")) is None
    assert len(asked) == 1


async def test_a_reader_s_wish_is_granted_and_not_too_often(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = held()
    writer = ReplyWriter(bus, claimed, Pace(0), round_of(claimed).prefix)

    async def granted() -> int:
        await writer._quiet()
        return sum(isinstance(frame, Snapshot) for frame in await frames_of(bus, claimed))

    writer.wanted()
    assert await granted() == 0  # nothing was said yet
    await writer.say([Piece(0, "a")])
    writer.wanted()
    writer.wanted()
    assert await granted() == 1
    monkeypatch.setattr(writing, "WANTED_SECONDS", 0)
    writer.wanted()
    assert await granted() == 2


async def test_a_snapshot_longer_than_the_bus_s_limit_does_not_end_the_reply(bus: Bus) -> None:
    claimed: Claimed = held()
    writer = ReplyWriter(bus, claimed, Pace(0), round_of(claimed).prefix)
    part = "x" * (bus.client.max_payload // 3)
    for _ in range(4):
        await writer.say([Piece(0, part)])
    await writer._snapshot()
    read = await read_out(bus, claimed)
    assert len(read.words) == 4 * len(part)
    assert sum(isinstance(frame, Snapshot) for frame in await frames_of(bus, claimed)) > 1
