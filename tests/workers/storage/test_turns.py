"""The turns in PostgreSQL: accepted once, claimed by one, committed by their owner or not at all."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from schemas import codec
from schemas.faults import EngineTimeout
from schemas.ids import new_id, part_of
from schemas.openai import UserMessage
from schemas.replies import Failed, Finished
from schemas.turns import TurnRequested, TurnState
from tests.workers.asked import (
    BUNDLE,
    OTHER,
    OWNER,
    alive,
    answer,
    asked,
    calls_of,
    chat,
    claimed,
    column,
    finish,
    new_turn,
    prepared,
    reply,
)
from tests.workers.storage.rows import add_session, add_turn
from workers.storage.arrivals import Arrivals
from workers.storage.turn_rows import Claimed, Partial, TurnEnd
from workers.storage.turns import Turns
from workers.storage.upkeep import Upkeep

LATE = EngineTimeout().record


async def messages_of(turns: Turns, turn_id: str) -> list[object]:
    query = "SELECT content AS value FROM messages WHERE turn_id = %(a)s ORDER BY ord"
    return await column(turns.database, query, turn_id)


async def state_of(turns: Turns, turn_id: str) -> str:
    stand = await turns.stand(turn_id)
    assert stand
    return stand.state


async def test_a_turn_that_stands_alone_gets_a_hidden_session_and_its_messages_in_order(
    turns: Turns, user_id: str
) -> None:
    arrival = asked(user_id, chat([UserMessage(content=word) for word in "abcdef"]))
    assert await Arrivals(turns.database).open(new_turn(arrival)) is not None
    assert await messages_of(turns, arrival.turn_id) == list("abcdef")
    assert await column(turns.database, "SELECT hidden AS value FROM sessions") == [True]


async def test_a_turn_is_accepted_once(turns: Turns, user_id: str) -> None:
    turn = new_turn(asked(user_id, chat("a")))
    first = await Arrivals(turns.database).open(turn)
    assert first is not None
    assert await Arrivals(turns.database).open(turn) is None
    assert await messages_of(turns, turn.arrival.turn_id) == ["a"]


async def test_what_was_accepted_is_found_as_it_was(turns: Turns, user_id: str) -> None:
    arrival = asked(user_id, fingerprint="f")
    placed = await Arrivals(turns.database).open(new_turn(arrival, shard=3, ignored_messages=2))
    assert placed
    known = await Arrivals(turns.database).find(arrival.turn_id)
    assert known
    assert (known.user_id, known.fingerprint, known.shard, known.created) == (user_id, "f", 3, placed.created)
    assert (known.state, known.ignored_messages, known.personality_id) == ("prepared", 2, "default")
    assert await Arrivals(turns.database).find(new_id()) is None


async def test_a_second_running_turn_of_a_session_is_refused_by_the_database(turns: Turns, user_id: str) -> None:
    session_id = await add_session(turns.database, user_id)
    await add_turn(turns.database, user_id, session_id, state="generating")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await add_turn(turns.database, user_id, session_id, state="accepted")


async def test_who_claims_a_turn_holds_all_that_its_answer_is_made_of(turns: Turns, user_id: str) -> None:
    arrival = asked(user_id)
    await Arrivals(turns.database).open(new_turn(arrival, shard=2))
    held = await claimed(turns, arrival.turn_id)
    assert (held.epoch, held.attempts, held.round, held.shard, held.taken_over) == (1, 1, 0, 2, False)
    assert codec.decode(held.arrival, TurnRequested) == arrival
    assert codec.decode(held.bundle, type(BUNDLE)) == BUNDLE
    assert await state_of(turns, arrival.turn_id) == TurnState.GENERATING


async def test_of_many_who_claim_at_once_one_gets_it(turns: Turns, user_id: str) -> None:
    owners = [new_id() for _ in range(4)]
    for owner in owners:
        await alive(turns, owner)
    for _ in range(10):
        turn_id = await prepared(turns, user_id)
        got = await asyncio.gather(*(turns.claim(turn_id, 0, owner) for owner in owners))
        assert [(held.epoch, held.taken_over) for held in got if held] == [(1, False)]


async def test_of_many_who_take_over_at_once_one_gets_it(turns: Turns, user_id: str) -> None:
    owners = [new_id() for _ in range(4)]
    for owner in owners:
        await alive(turns, owner)
    for _ in range(10):
        turn_id = await prepared(turns, user_id)
        await claimed(turns, turn_id, owner=new_id())
        got = await asyncio.gather(*(turns.claim(turn_id, 0, owner) for owner in owners))
        assert [(held.epoch, held.taken_over) for held in got if held] == [(2, True)]


async def test_a_turn_whose_owner_lives_is_not_taken_over(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    assert await turns.claim(turn_id, 0, OTHER) is None


async def test_a_turn_whose_owner_s_lease_is_over_is_taken_over(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns, seconds=-1)
    await claimed(turns, turn_id)
    held = await claimed(turns, turn_id, owner=OTHER)
    assert (held.taken_over, held.epoch, held.attempts) == (True, 2, 2)


async def test_who_gives_up_its_lease_is_followed_at_once(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    await Upkeep(turns.database).give_up_lease(OWNER)
    assert await turns.claim(turn_id, 0, OTHER) is not None


async def test_an_owner_that_gets_its_own_turn_again_takes_it_over_from_itself(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    again = await claimed(turns, turn_id)
    assert (again.epoch, again.attempts, again.taken_over) == (2, 2, True)


async def test_only_the_round_that_is_open_is_claimed(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    assert await turns.claim(turn_id, 1, OWNER) is None
    await finish(turns, await claimed(turns, turn_id))
    assert await turns.claim(turn_id, 0, OTHER) is None


async def test_a_turn_nobody_accepted_is_neither_claimed_nor_found(turns: Turns) -> None:
    assert await turns.claim(new_id(), 0, OWNER) is None
    assert await turns.stand(new_id()) is None
    assert await turns.fail(new_id(), LATE) is None
    assert await turns.count_failure(new_id()) == 0


async def fenced(turns: Turns, user_id: str) -> Claimed:
    """An owner whose turn somebody else holds by now."""
    turn_id = await prepared(turns, user_id)
    old = await claimed(turns, turn_id)
    await claimed(turns, turn_id, owner=OTHER)
    return old


async def test_a_fenced_owner_s_end_writes_nothing(turns: Turns, user_id: str) -> None:
    old = await fenced(turns, user_id)
    before = await column(turns.database, "SELECT to_jsonb(turns) AS value FROM turns")
    assert await turns.finish(old, TurnState.COMPLETED, reply("x"), [answer(old.turn_id, "x")]) is None
    assert await column(turns.database, "SELECT to_jsonb(turns) AS value FROM turns") == before
    assert await messages_of(turns, old.turn_id) == ["Hi"]


async def test_a_fenced_owner_s_tool_calls_write_nothing(turns: Turns, user_id: str) -> None:
    old = await fenced(turns, user_id)
    calls = calls_of(old.turn_id, "clock")
    assert not await turns.call_tools(old, reply("x"), answer(old.turn_id, "x"), calls)
    assert await turns.asked_calls(old.turn_id, 0) == []
    assert await messages_of(turns, old.turn_id) == ["Hi"]


async def test_a_fenced_owner_s_text_so_far_does_not_replace_its_follower_s(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    old, new = await claimed(turns, turn_id), await claimed(turns, turn_id, owner=OTHER)
    id = part_of(turn_id, "reply", 0, 0)

    async def keep(held: Claimed, text: str) -> set[str]:
        return await turns.keep_partial([Partial(message_id=id, turn_id=turn_id, epoch=held.epoch, text=text)])

    assert await keep(new, "Once upon") == {turn_id}
    assert await keep(old, "Once more") == set()
    assert await turns.kept_partial(id) == "Once upon"


async def test_a_claim_is_lost_to_who_takes_the_turn_or_ends_it_and_not_by_its_own_end(
    turns: Turns, user_id: str
) -> None:
    taken, failed, ended, held = [await claimed(turns, await prepared(turns, user_id)) for _ in range(4)]
    claims = [(each.turn_id, each.epoch) for each in (taken, failed, ended, held)]
    assert await turns.lost(claims) == []
    await claimed(turns, taken.turn_id, owner=OTHER)
    await turns.fail(failed.turn_id, LATE)
    await finish(turns, ended)
    assert sorted(await turns.lost(claims)) == sorted(claims[:2])


async def test_the_end_holds_all_that_readers_were_shown(turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    said = reply("Hel", "lo 🙂")
    ended = await turns.finish(
        held, TurnState.COMPLETED, said, [answer(held.turn_id, "Hello 🙂")], finish_reasons=["stop"]
    )
    assert ended is not None
    end = await turns.end_of(held.turn_id)
    assert end
    shown = (end.shown_index, end.shown_length, end.shown_digest)
    assert shown == (said.shown_index, said.shown_length, said.shown_digest)
    assert end.frame() == Finished(held.epoch, 2, ["stop"], said.usage, *shown[1:])


async def test_a_turn_that_has_not_ended_has_no_end(turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    assert await turns.end_of(held.turn_id) is None


@pytest.mark.parametrize("state", [TurnState.FAILED, TurnState.INTERRUPTED])
async def test_a_bad_end_is_told_with_its_fault(turns: Turns, user_id: str, state: TurnState) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    await turns.finish(held, state, reply("x"), [answer(held.turn_id, "x")], fault=LATE)
    end = await turns.end_of(held.turn_id)
    assert end
    assert end.frame() == Failed(held.epoch, 1, LATE, state.value)


def test_a_cancelled_turn_ends_in_good_order_and_is_marked_as_stopped() -> None:
    end = TurnEnd(
        state="cancelled", epoch=2, shard=0, session_id="s", shown_index=3, shown_length=4, shown_digest=5,
        finish_reasons=None, usage=None, fault=None,
    )  # fmt: skip
    frame = end.frame()
    assert isinstance(frame, Finished)
    assert (frame.finish_reasons, frame.state, frame.stopped) == (["stop"], "cancelled", True)


async def test_a_turn_failed_from_outside_fences_its_owner(turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    row = await turns.fail(held.turn_id, LATE)
    assert row
    assert (row.epoch, row.session_id) == (held.epoch + 1, held.session_id)
    assert await turns.finish(held, TurnState.COMPLETED, reply("x"), []) is None
    assert await turns.fail(held.turn_id, LATE) is None


async def test_failures_are_counted(turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    assert [await turns.count_failure(turn_id) for _ in range(3)] == [1, 2, 3]
