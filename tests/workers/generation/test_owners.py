"""Owners one after the other, each paused where it hurts: nothing is said twice, nothing is missing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import pytest

from ops.runtime.bus import Bus, BusUnavailable
from ops.runtime.replay import replay
from schemas import codec, subjects
from schemas.openai import Usage
from schemas.replies import Checkpoint, Finished, Snapshot
from schemas.streams import REPLIES
from tests.workers.generation.rounds_made import Read, held, read_out, round_of
from workers.generation import takeover
from workers.generation.pace import Pace
from workers.generation.takeover import Prefix, fence_off, read_prefix, read_up_to
from workers.generation.writer import Piece, ReplyWriter
from workers.storage.turn_rows import Claimed


def owner(bus: Bus, claimed: Claimed, prefix: Prefix | None = None) -> ReplyWriter:
    return ReplyWriter(bus, claimed, Pace(0), prefix or round_of(claimed).prefix)


def after(claimed: Claimed, **changes: object) -> Claimed:
    """The claim of the next owner."""
    epoch = claimed.epoch + 1
    return msgspec.structs.replace(claimed, **({"epoch": epoch, "attempts": epoch, "taken_over": True} | changes))


def end_of(writer: ReplyWriter) -> Finished:
    return Finished(writer.epoch, writer.index, ["stop"], Usage(), writer.length, writer.digest)


async def babble(writer: ReplyWriter) -> None:
    """What a thawed owner does: it speaks, checks, heals, and even ends."""
    await writer.say([Piece(0, " zombie")])
    await writer._checkpoint()
    await writer._snapshot()
    await writer.tell(end_of(writer))


async def taken(bus: Bus, claimed: Claimed, old: Sequence[ReplyWriter], speaks: Sequence[bool]) -> ReplyWriter:
    """Take over; before the fence, between fence and read, read and start, and after it, old owners may speak."""

    async def pause(point: int) -> None:
        if speaks[point]:
            for each in old:
                await babble(each)
            await bus.flush()

    fence = await fence_off(bus, claimed)
    await pause(0)
    prefix = await read_up_to(bus, claimed, fence)
    assert prefix is not None
    await pause(1)
    writer = owner(bus, claimed, prefix)
    await writer.take_over(claimed.attempts)
    await pause(2)
    await writer.say([Piece(0, f" {claimed.epoch}")])
    await pause(3)
    return writer


async def ended(bus: Bus, writer: ReplyWriter, claimed: Claimed) -> Read:
    await writer.tell(end_of(writer))
    read = await read_out(bus, claimed)
    assert read.fold.end is not None
    assert read.fold.end.epoch == writer.epoch
    return read


@pytest.mark.parametrize("speaks", list(itertools.product([False, True], repeat=4)), ids=str)
async def test_an_owner_that_was_followed_says_nothing_that_counts(bus: Bus, speaks: Sequence[bool]) -> None:
    claimed = held()
    first = owner(bus, claimed)
    await first.say([Piece(0, "1")])
    await bus.flush()
    second = await taken(bus, after(claimed), [first], speaks)
    third = await taken(bus, after(after(claimed)), [first, second], speaks)
    read = await ended(bus, third, claimed)
    assert read.words == third.text() == "1 2 3"
    assert read.gaps == 0


async def test_an_owner_that_died_before_it_began_leaves_no_trace(bus: Bus) -> None:
    claimed = held()
    first = owner(bus, claimed)
    await first.say([Piece(0, "1")])
    await read_prefix(bus, after(claimed))
    await babble(first)
    third = await taken(bus, after(after(claimed)), [first], [True] * 4)
    assert (await ended(bus, third, claimed)).words == "1 3"


async def test_what_was_said_before_the_fence_counts_however_late_it_was_said(bus: Bus) -> None:
    claimed = held()
    first = owner(bus, claimed)
    await first.say([Piece(0, "1")])
    prefix = await read_prefix(bus, after(claimed))
    assert prefix.text == "1"
    await first.say([Piece(0, " late")])
    again = await read_prefix(bus, after(after(claimed)))
    assert again.text == "1"


async def test_a_reply_that_had_shown_nothing_is_begun_by_whoever_comes(bus: Bus) -> None:
    claimed = held()
    first = owner(bus, claimed)
    second = await taken(bus, after(claimed), [first], [True] * 4)
    assert (await ended(bus, second, claimed)).words == " 2"


async def test_a_later_round_is_taken_over_where_it_stands(bus: Bus) -> None:
    begun = held()
    before = owner(bus, begun)
    await before.say([Piece(0, "Let me look. ")])
    round_one = held(
        turn_id=begun.turn_id, epoch=3, attempts=1, round=1,
        shown_index=before.index, shown_length=before.length, shown_digest=before.digest,
    )  # fmt: skip
    first = owner(bus, round_one)
    await first.say([Piece(0, "It is")])
    prefix = await read_prefix(bus, after(round_one, attempts=2))
    assert (prefix.text, prefix.index) == ("It is", 2)
    second = owner(bus, after(round_one, attempts=2), prefix)
    await second.take_over(2)
    await babble(first)
    await second.say([Piece(0, " noon.")])
    read = await ended(bus, second, begun)
    assert read.words == "Let me look. It is noon."
    assert second.text() == "It is noon."


async def test_a_later_round_that_had_shown_nothing_is_begun_behind_the_earlier(bus: Bus) -> None:
    begun = held()
    before = owner(bus, begun)
    await before.say([Piece(0, "Let me look. ")])
    round_one = held(
        turn_id=begun.turn_id, epoch=3, round=1,
        shown_index=before.index, shown_length=before.length, shown_digest=before.digest,
    )  # fmt: skip
    second = await taken(bus, after(round_one), [owner(bus, round_one)], [True] * 4)
    assert (await ended(bus, second, begun)).words == "Let me look.  4"


class Lagging:
    """A copy of the stream that has not got the last messages yet, for so many reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reads: int, missing: int = 1) -> None:
        self.reads, self.missing = reads, missing
        monkeypatch.setattr(takeover, "replay", self.replay)
        monkeypatch.setattr(takeover, "READ_AGAIN", 0.001)

    async def replay(self, bus: Bus, stream: str, subject: str):  # type: ignore[no-untyped-def]
        found = [each async for each in replay(bus, stream, subject)]
        self.reads -= 1
        for each in found[: -self.missing] if self.reads >= 0 else found:
            yield each


async def test_a_lagging_copy_s_short_answer_is_not_taken_for_the_whole_prefix(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = held()
    first = owner(bus, claimed)
    await first.say([Piece(0, "1")])
    await first.say([Piece(0, " and more")])
    Lagging(monkeypatch, reads=2, missing=2)
    assert (await read_prefix(bus, after(claimed))).text == "1 and more"


async def test_a_stream_that_never_shows_our_own_fence_is_tried_by_others_and_then_lost(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = held()
    await owner(bus, claimed).say([Piece(0, "1")])
    Lagging(monkeypatch, reads=1000)
    with pytest.raises(BusUnavailable):
        await read_prefix(bus, after(claimed))
    assert (await read_prefix(bus, after(claimed, attempts=takeover.ATTEMPTS))).lost


async def test_what_the_stream_holds_up_to_our_fence_is_counted(bus: Bus) -> None:
    claimed = held()
    first = owner(bus, claimed)
    await first.say([Piece(0, "1")])
    subject = subjects.reply(claimed.shard, claimed.turn_id)
    for frame in (Checkpoint(1, 1, 1, 0), Snapshot(1, 1, first.said)):
        await bus.store(subject, codec.encode(frame), msg_id=None)
    assert (await read_prefix(bus, after(claimed))).frames == 4
    info = await bus.client.jetstream().stream_info(REPLIES.name, subjects_filter=subject)
    assert (info.state.subjects or {})[subject] == 4
