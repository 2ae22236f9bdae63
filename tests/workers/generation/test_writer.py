"""A reply on its way: numbered, merged, checked against loss, and told to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.runtime.bus import Bus, _Client
from schemas import codec, subjects
from schemas.faults import EngineFailed
from schemas.openai import FunctionCall, ToolCall, Usage
from schemas.replies import Checkpoint, Delta, Failed, Finished, Frame, Snapshot, Start
from schemas.streams import REPLIES
from tests.outages import cut_off
from tests.workers.generation.rounds_made import frames_of, held, read_out, round_of, writer_of
from workers.generation import writer as writing
from workers.generation.pace import Pace
from workers.generation.takeover import Prefix
from workers.generation.writer import Piece, ReplyWriter
from workers.storage.turn_rows import Claimed

CALL = ToolCall(id="c1", function=FunctionCall("look", "{}"))


def end_of(writer: ReplyWriter) -> Finished:
    return Finished(writer.epoch, writer.index, ["stop"], Usage(), writer.length, writer.digest)


@pytest.fixture
def claimed() -> Claimed:
    return held()


@pytest.fixture
async def writer(bus: Bus, claimed: Claimed) -> ReplyWriter:
    return writer_of(bus, round_of(claimed))


@pytest.fixture
async def own_bus(nats_url: str, bus: Bus) -> AsyncIterator[Bus]:
    """A writer's own connection, for tests that break it."""
    own = await Bus.connect(nats_url, "writer")
    yield own
    await own.close()


async def test_events_are_numbered_from_one_and_the_first_says_that_it_begins(
    bus: Bus, claimed: Claimed, writer: ReplyWriter
) -> None:
    for word in ("a", "b", "c"):
        await writer.say([Piece(0, word)])
    frames = await frames_of(bus, claimed)
    assert frames == [Delta(1, 1, "a", begins=True), Delta(1, 2, "b"), Delta(1, 3, "c")]
    assert frames == writer.said


async def test_a_later_round_goes_on_counting(bus: Bus) -> None:
    claimed = held(epoch=5, shown_index=7, shown_length=20, shown_digest=9)
    writer = writer_of(bus, round_of(claimed))
    await writer.say([Piece(0, "a")])
    assert await frames_of(bus, claimed) == [Delta(5, 8, "a", begins=True)]
    assert (writer.index, writer.length) == (8, 21)


async def test_who_takes_over_says_where_it_begins(bus: Bus) -> None:
    claimed = held(epoch=2, taken_over=True)
    said = (Delta(1, 1, "a", begins=True),)
    writer = writer_of(bus, round_of(claimed, prefix=Prefix(index=1, length=1, digest=0, said=said)))
    await writer.take_over(2)
    await writer.say([Piece(0, "b")])
    assert await frames_of(bus, claimed) == [Start(2, 1, 2), Delta(2, 2, "b")]
    assert writer.text() == "ab"


PIECES = st.builds(
    Piece,
    choice=st.integers(0, 2),
    text=st.text(alphabet="ab", max_size=2),
    reasoning=st.text(alphabet="rs", max_size=2),
    refusal=st.sampled_from(["", "", "no"]),
    tool_calls=st.sampled_from([None, None, None, [CALL]]),
    logprobs=st.sampled_from([None, None, {"content": []}]),
)


@given(st.lists(st.lists(PIECES, max_size=4), max_size=5))
def test_merging_keeps_every_choice_s_words_in_order(batches: list[list[Piece]]) -> None:
    def story(parts: list[Piece] | list[Delta], choice: int, kind: str) -> str:
        return "".join(getattr(part, kind) for part in parts if part.choice == choice)

    async def merged() -> list[Delta]:
        round = round_of()
        writer = ReplyWriter(Bus(_Client(), "offline"), round.claimed, Pace(0), round.prefix)
        for batch in batches:
            writer.add([Piece(p.choice, p.text, p.reasoning, p.refusal, p.tool_calls, p.logprobs) for p in batch])
        await writer.seal()
        return writer.said

    pieces, said = [piece for batch in batches for piece in batch], asyncio.run(merged())
    for choice in range(3):
        for kind in ("text", "reasoning", "refusal"):
            assert story(said, choice, kind) == story(pieces, choice, kind)
    assert [delta.index for delta in said] == list(range(1, len(said) + 1))
    assert sum(delta.tokens for delta in said) == len(pieces)
    assert sum(len(delta.tool_calls or ()) for delta in said) == sum(len(piece.tool_calls or ()) for piece in pieces)


def kinds_in_order(parts: list[Piece] | list[Delta], choice: int) -> list[str]:
    """Thoughts and words of a choice as a reader meets them, neighbours of one kind as one."""
    kinds = [("t" if part.text else "r") for part in parts if part.choice == choice]
    return [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]


@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=12))
def test_merging_never_moves_a_word_before_a_thought(said: list[tuple[int, bool]]) -> None:
    pieces = [Piece(choice, text="w") if word else Piece(choice, reasoning="t") for choice, word in said]
    before = [kinds_in_order(pieces, choice) for choice in (0, 1)]

    async def merged() -> list[Delta]:
        round = round_of()
        writer = ReplyWriter(Bus(_Client(), "offline"), round.claimed, Pace(0), round.prefix)
        writer.add(pieces)
        await writer.seal()
        return writer.said

    assert [kinds_in_order(asyncio.run(merged()), choice) for choice in (0, 1)] == before


async def test_words_that_arrive_together_travel_together(bus: Bus, claimed: Claimed, writer: ReplyWriter) -> None:
    await writer.say([Piece(0, "a"), Piece(0, "b"), Piece(1, "x"), Piece(0, "c"), Piece(1, "y")])
    assert await frames_of(bus, claimed) == [
        Delta(1, 1, "abc", tokens=3, begins=True),
        Delta(1, 2, "xy", choice=1, tokens=2),
    ]


async def test_under_load_the_first_words_go_at_once_and_the_later_ones_wait_for_company(
    bus: Bus, claimed: Claimed
) -> None:
    pace = Pace(0.02)
    pace.window = 0.02
    writer = writer_of(bus, round_of(claimed), pace)
    await writer.say([Piece(0, "a")])
    assert len(await frames_of(bus, claimed)) == 1
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await bus.listen(subjects.live(0, claimed.turn_id), lambda _, data: heard.put_nowait(data))
    await writer.say([Piece(0, "b")])
    await writer.say([Piece(0, "c")])
    assert writer.index == 1
    async with asyncio.timeout(5):
        assert codec.decoder(Frame).decode(await heard.get()) == Delta(1, 2, "bc", tokens=2)


async def test_the_last_words_are_counted_when_sealed_and_travel_with_the_end(bus: Bus, claimed: Claimed) -> None:
    pace = Pace(60)
    pace.window = 60
    writer = writer_of(bus, round_of(claimed), pace)
    for word in ("Hel", "lo", "."):
        await writer.say([Piece(0, word)])
    await writer.seal()
    assert (writer.index, writer.length, writer.text()) == (2, 6, "Hello.")
    assert len(await frames_of(bus, claimed)) == 1
    await writer.tell(end_of(writer))
    read = await read_out(bus, claimed)
    assert (read.words, read.gaps, read.fold.end) == ("Hello.", 0, end_of(writer))


async def test_an_end_told_twice_is_there_once(bus: Bus, claimed: Claimed, writer: ReplyWriter) -> None:
    await writer.say([Piece(0, "a")])
    await writer.seal()
    for _ in range(2):
        await writer.tell(end_of(writer))
    assert len(await frames_of(bus, claimed)) == 2


async def test_a_bad_end_is_told_after_what_was_said(bus: Bus, claimed: Claimed, writer: ReplyWriter) -> None:
    await writer.say([Piece(0, "a")])
    await writer.seal()
    failed = Failed(1, 1, EngineFailed().record)
    await writer.tell(failed)
    assert (await frames_of(bus, claimed))[-1] == failed


async def lose(bus: Bus, index: int) -> None:
    """Let the stream forget its n-th message, as a leader election does."""
    jetstream = bus.client.jetstream()
    state = (await jetstream.stream_info(REPLIES.name)).state
    await jetstream.delete_msg(REPLIES.name, state.first_seq + index - 1)


async def test_after_an_outage_everything_is_sent_again(bus: Bus, own_bus: Bus, claimed: Claimed) -> None:
    writer = writer_of(own_bus, round_of(claimed))
    for word in ("a", "b", "c"):
        await writer.say([Piece(0, word)])
    await own_bus.flush()
    assert len(await frames_of(bus, claimed)) == 3
    await lose(bus, 2)
    await cut_off(own_bus)
    await writer.say([Piece(0, "d")])
    await writer.seal()
    await writer.tell(end_of(writer))
    read = await read_out(bus, claimed)
    assert (read.words, read.fold.end) == ("abcd", end_of(writer))
    assert any(isinstance(frame, Snapshot) for frame in await frames_of(bus, claimed))


async def test_healing_a_reply_that_is_whole_sends_nothing(bus: Bus, claimed: Claimed, writer: ReplyWriter) -> None:
    await writer.say([Piece(0, "a")])
    await writer.heal()
    assert len(await frames_of(bus, claimed)) == 1


async def test_a_reply_is_healed_once_an_outage(bus: Bus, own_bus: Bus, claimed: Claimed) -> None:
    writer = writer_of(own_bus, round_of(claimed))
    await writer.say([Piece(0, "a")])
    await cut_off(own_bus)
    await writer.heal()
    await writer.heal()
    snapshots = [frame for frame in await frames_of(bus, claimed) if isinstance(frame, Snapshot)]
    assert snapshots == [Snapshot(1, 1, writer.said)]


async def full(*_: object, **__: object) -> None:
    raise nats.errors.OutboundBufferLimitError


async def test_words_that_could_not_be_sent_are_sent_again_in_a_snapshot(
    bus: Bus, own_bus: Bus, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(own_bus, round_of(claimed))
    await writer.say([Piece(0, "a")])
    # The client refuses, as it does when its buffer is full in a long outage.
    with monkeypatch.context() as refusing:
        refusing.setattr(own_bus.client, "publish", full)
        await writer.say([Piece(0, "b")])
    await writer.seal()
    await writer.tell(end_of(writer))
    read = await read_out(bus, claimed)
    assert (read.words, read.gaps) == ("ab", 0)


async def test_now_and_then_the_stream_is_asked_whether_it_has_all(
    bus: Bus, claimed: Claimed, writer: ReplyWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "CHECKPOINT_SECONDS", -1)
    await writer.say([Piece(0, "ab")])
    await writer.seal()
    assert (await frames_of(bus, claimed))[-1] == Checkpoint(1, 1, 2, writer.digest)


async def test_who_abandons_a_reply_says_nothing_more(bus: Bus, claimed: Claimed) -> None:
    pace = Pace(0.01)
    pace.window = 0.01
    writer = writer_of(bus, round_of(claimed), pace)
    await writer.say([Piece(0, "a")])
    await writer.say([Piece(0, "b")])
    writer.abandon()
    departed = asyncio.Event()

    class Other:
        """Another reply that boards the same departure."""

        async def flush(self) -> None:
            departed.set()

    pace.board(Other())
    await departed.wait()
    assert len(await frames_of(bus, claimed)) == 1
