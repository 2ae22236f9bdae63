"""Taking over a reply: what its readers have seen of it, and whether a model can go on from there."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.openai import FunctionCall, ToolCall
from schemas.replies import Delta, Fence, Frame, Progress, Snapshot, Start, measure
from schemas.streams import REPLIES
from tests.workers.asked import chat
from tests.workers.generation.rounds_made import frames_of, held
from workers.generation import takeover
from workers.generation.takeover import Prefix, may_continue, read_prefix, unless_forgotten
from workers.storage.turn_rows import Claimed

SAID = [Delta(1, 1, "a", begins=True), Delta(1, 2, "b"), Delta(1, 3, "c")]


async def publish(bus: Bus, claimed: Claimed, *frames: Frame) -> None:
    for frame in frames:
        await bus.publish(subjects.reply(claimed.shard, claimed.turn_id), codec.encode(frame))
    await bus.flush()


def taking_over(**changes: Any) -> Claimed:
    return held(**({"epoch": 2, "attempts": 2, "taken_over": True} | changes))


async def test_the_prefix_is_what_readers_were_shown(bus: Bus) -> None:
    claimed = taking_over()
    await publish(bus, claimed, *SAID)
    prefix = await read_prefix(bus, claimed)
    assert (prefix.said, prefix.index, prefix.text, prefix.lost) == (tuple(SAID), 3, "abc", False)
    length = digest = 0
    for delta in SAID:
        length, digest = measure(delta, length, digest)
    assert (prefix.length, prefix.digest) == (length, digest)


async def test_a_reply_nobody_has_begun_has_an_empty_prefix(bus: Bus) -> None:
    prefix = await read_prefix(bus, taking_over())
    assert (prefix.said, prefix.index, prefix.text, prefix.lost) == ((), 0, None, False)


async def test_the_dead_owner_is_fenced_off_before_its_words_are_read(bus: Bus) -> None:
    claimed = taking_over()
    await publish(bus, claimed, SAID[0])
    await read_prefix(bus, claimed)
    assert (await frames_of(bus, claimed))[-1] == Fence(2)


async def test_what_a_fenced_owner_still_says_is_not_in_a_later_prefix(bus: Bus) -> None:
    claimed = taking_over()
    await publish(bus, claimed, *SAID[:2])
    await read_prefix(bus, claimed)
    await publish(bus, claimed, SAID[2], Start(2, 2, 2), Delta(2, 3, "C"))
    later = taking_over(turn_id=claimed.turn_id, epoch=3)
    assert (await read_prefix(bus, later)).text == "abC"


async def test_a_prefix_read_twice_is_the_same_up_to_its_fence(bus: Bus) -> None:
    claimed = taking_over()
    await publish(bus, claimed, *SAID[:2])
    first = await read_prefix(bus, claimed)
    await publish(bus, claimed, SAID[2], Fence(3), Start(3, 2, 3), Delta(3, 3, "x"))
    assert await read_prefix(bus, claimed) == first


async def test_earlier_rounds_count_and_are_not_this_round_s_words(bus: Bus) -> None:
    claimed = taking_over(round=1, epoch=4, shown_index=2)
    await publish(bus, claimed, *SAID[:2], Progress(2, "clock", "c", "done"), Delta(3, 3, "d", begins=True))
    prefix = await read_prefix(bus, claimed)
    assert (prefix.said, prefix.index, prefix.text) == ((Delta(3, 3, "d", begins=True),), 3, "d")


async def test_the_stream_tells_when_the_first_word_of_a_round_was_shown(bus: Bus) -> None:
    claimed = taking_over(round=1, epoch=4, shown_index=1)
    await publish(bus, claimed, SAID[0], Progress(2, "clock", "c", "done"))
    began = time.time()
    await publish(bus, claimed, msgspec.structs.replace(SAID[1], begins=True))
    await read_prefix(bus, claimed)
    shown = time.time()
    await publish(bus, claimed, Start(4, 2, 2), Delta(4, 3, "c"))
    prefix = await read_prefix(bus, msgspec.structs.replace(claimed, epoch=5))
    assert prefix.text == "bc"
    assert prefix.first_said_at is not None
    assert began <= prefix.first_said_at <= shown


async def test_a_takeover_does_not_fail_for_want_of_a_time(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "ASK_SECONDS", 0)
    claimed = taking_over()
    await publish(bus, claimed, *SAID)
    prefix = await read_prefix(bus, claimed)
    assert (prefix.text, prefix.first_said_at) == ("abc", None)


async def test_another_turn_s_words_are_not_read(bus: Bus) -> None:
    await publish(bus, taking_over(), *SAID)
    assert (await read_prefix(bus, taking_over())).index == 0


async def test_a_long_reply_is_read_whole(bus: Bus) -> None:
    claimed = taking_over()
    await publish(bus, claimed, *(Delta(1, i, "x", begins=i == 1) for i in range(1, 2501)))
    assert (await read_prefix(bus, claimed)).index == 2500


async def test_a_prefix_with_a_hole_is_lost(bus: Bus) -> None:
    claimed = taking_over()
    await publish(bus, claimed, SAID[0], SAID[2])
    assert (await read_prefix(bus, claimed)).lost


async def test_a_hole_that_a_snapshot_closed_is_none(bus: Bus) -> None:
    claimed = taking_over()
    await publish(bus, claimed, SAID[0], SAID[2], Snapshot(1, 3, SAID))
    prefix = await read_prefix(bus, claimed)
    assert (prefix.text, prefix.lost) == ("abc", False)


@pytest.mark.parametrize(
    "after", [[Fence(2)], [Progress(1, "clock", "c", "running")], [Fence(2), SAID[1]], [SAID[0]]], ids=str
)
async def test_a_hole_stays_one_whatever_comes_behind_it(bus: Bus, after: list[Frame]) -> None:
    claimed = taking_over(epoch=3)
    await publish(bus, claimed, SAID[0], SAID[2], *after)
    assert (await read_prefix(bus, claimed)).lost


async def test_a_prefix_whose_beginning_the_stream_has_forgotten_is_lost(bus: Bus) -> None:
    jetstream = bus.client.jetstream()
    for shown_index, forgotten in ((0, 1), (3, 3)):
        claimed = taking_over(shown_index=shown_index)
        await publish(bus, claimed, *SAID)
        subject = subjects.reply(claimed.shard, claimed.turn_id)
        await jetstream.purge_stream(REPLIES.name, subject=subject, keep=3 - forgotten)
        assert (await read_prefix(bus, claimed)).lost


@pytest.mark.parametrize(
    ("kept", "lost"), [(None, False), ("", False), ("a", False), ("ab", False), ("abc", True), ("x", True)]
)
def test_words_that_were_kept_and_that_the_stream_has_forgotten_are_lost(kept: str | None, lost: bool) -> None:
    said = (Delta(1, 1, "a"), Delta(1, 2, "other", choice=1), Delta(1, 3, "b"))
    assert unless_forgotten(Prefix(index=3, length=2, digest=0, said=said), kept).lost is lost


SHOWN = Prefix(index=1, length=1, digest=0, said=(Delta(1, 1, "a"),))
CALL = ToolCall(id="c", function=FunctionCall("f"))


def test_what_has_shown_nothing_can_always_begin() -> None:
    nothing = Prefix(index=0, length=0, digest=0)
    for resume in ("none", "prefill", "continue", None):
        assert may_continue(chat(n=2, logprobs=True, stop="x"), nothing, resume)


@pytest.mark.parametrize(
    ("request_changes", "said", "resume", "may"),
    [
        ({}, Delta(1, 1, "a"), "prefill", True),
        ({}, Delta(1, 1, "a"), "none", False),
        ({}, Delta(1, 1, "a"), None, False),
        ({"n": 1}, Delta(1, 1, "a"), "prefill", True),
        ({"n": 2}, Delta(1, 1, "a"), "prefill", False),
        ({"logprobs": True}, Delta(1, 1, "a"), "prefill", False),
        ({"logprobs": False}, Delta(1, 1, "a"), "prefill", True),
        ({"stop": "x"}, Delta(1, 1, "a"), "prefill", True),
        ({"stop": "ab"}, Delta(1, 1, "a"), "prefill", False),
        ({"stop": ["x", "a.\n"]}, Delta(1, 1, "it is a."), "prefill", False),
        ({"stop": ["x", "a.\n"]}, Delta(1, 1, "it is a. "), "prefill", True),
        ({}, Delta(1, 1, "a"), "continue", True),
        ({"stop": "x"}, Delta(1, 1, "a"), "continue", False),
        ({"stop": []}, Delta(1, 1, "a"), "prefill", True),
        ({"response_format": {"type": "json_schema"}}, Delta(1, 1, "a"), "prefill", False),
        ({"response_format": {"type": "json_object"}}, Delta(1, 1, "a"), "prefill", False),
        ({}, Delta(1, 1, reasoning="hm"), "none", True),
        ({}, Delta(1, 1, "a", reasoning="hm"), "prefill", True),
        ({}, Delta(1, 1, "a", reasoning="hm"), "none", False),
        ({}, Delta(1, 1, refusal="no"), "prefill", False),
        ({}, Delta(1, 1, tool_calls=[CALL]), "prefill", False),
        ({"temperature": 1.0, "max_tokens": 9, "seed": 1}, Delta(1, 1, "a"), "prefill", True),
    ],
)
def test_only_plain_words_of_a_free_reply_can_be_gone_on_from(
    request_changes: dict[str, Any], said: Delta, resume: str | None, may: bool
) -> None:
    prefix = Prefix(index=1, length=1, digest=0, said=(said,))
    assert may_continue(chat(**request_changes), prefix, resume) is may


def test_nobody_goes_on_from_what_is_lost() -> None:
    for said in ((), SHOWN.said):
        lost = Prefix(index=0, length=0, digest=0, said=said, lost=True)
        assert not may_continue(chat(), lost, "prefill")
