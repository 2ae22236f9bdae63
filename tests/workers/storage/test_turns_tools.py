"""Tool calls in PostgreSQL: asked once, started once, answered once, and committed by their owner."""

from __future__ import annotations

from schemas.ids import part_of
from schemas.openai import Usage
from schemas.turns import TurnState
from tests.workers.asked import (
    OTHER,
    OWNER,
    alive,
    answer,
    calls_of,
    claimed,
    column,
    prepared,
    reply,
)
from workers.storage.turn_rows import CallStart, ToolsClaimed
from workers.storage.turns import Turns
from workers.storage.upkeep import Upkeep


async def calling(turns: Turns, user_id: str, *names: str) -> str:
    """A turn whose model has asked for tools of ours."""
    held = await claimed(turns, await prepared(turns, user_id))
    message = answer(held.turn_id, "Let me see.")
    assert await turns.call_tools(held, reply("Let me see."), message, calls_of(held.turn_id, *names))
    return held.turn_id


async def held_by(turns: Turns, turn_id: str, owner: str = OWNER) -> ToolsClaimed:
    held = await turns.claim_tools(turn_id, 0, owner)
    assert held is not None
    return held


def results_of(held: ToolsClaimed, *answers: str) -> list[tuple[str, str, str]]:
    return [
        (part_of(held.turn_id, "result", held.round, position), f"c{position + 1}", each)
        for position, each in enumerate(answers)
    ]


async def test_calls_are_read_back_in_the_model_s_order(turns: Turns, user_id: str) -> None:
    names = [f"tool{i}" for i in range(12)]
    turn_id = await calling(turns, user_id, *names)
    calls = await turns.asked_calls(turn_id, 0)
    assert [call.name for call in calls] == names
    assert {(call.status, call.result, call.arguments) for call in calls} == {("asked", None, "{}")}
    assert await turns.asked_calls(turn_id, 1) == []


async def test_a_call_starts_once(turns: Turns, user_id: str) -> None:
    turn_id = await calling(turns, user_id, "clock")
    held = await held_by(turns, turn_id)
    call = (await turns.asked_calls(turn_id, 0))[0]
    assert await turns.start_call(held, call.id) == CallStart(stopped=False, first=True)
    assert await turns.start_call(held, call.id) == CallStart(stopped=False, first=False)


async def test_the_first_answer_to_a_call_stays(turns: Turns, user_id: str) -> None:
    turn_id = await calling(turns, user_id, "clock")
    held = await held_by(turns, turn_id)
    call = (await turns.asked_calls(turn_id, 0))[0]
    await turns.start_call(held, call.id)
    await turns.end_call(call.id, "done", "noon")
    await turns.end_call(call.id, "failed", "midnight")
    assert await turns.start_call(held, call.id) == CallStart(stopped=False, first=False)
    kept = (await turns.asked_calls(turn_id, 0))[0]
    assert (kept.status, kept.result) == ("done", "noon")


async def test_only_its_turn_s_owner_starts_a_call_and_only_before_the_stop(turns: Turns, user_id: str) -> None:
    turn_id = await calling(turns, user_id, "clock")
    old, held = await held_by(turns, turn_id), await held_by(turns, turn_id)
    call = (await turns.asked_calls(turn_id, 0))[0]
    assert await turns.start_call(old, call.id) is None
    await turns.stop(user_id, [turn_id])
    assert await turns.start_call(held, call.id) == CallStart(stopped=True, first=False)
    assert (await turns.asked_calls(turn_id, 0))[0].status == "asked"


async def test_calls_that_are_asked_for_again_are_there_once(turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    args = (reply("x"), answer(held.turn_id, "x"), calls_of(held.turn_id, "clock"))
    assert await turns.call_tools(held, *args)
    assert not await turns.call_tools(held, *args)
    assert len(await turns.asked_calls(held.turn_id, 0)) == 1


async def test_calls_whose_owner_lives_are_not_taken_over(turns: Turns, user_id: str) -> None:
    turn_id = await calling(turns, user_id, "clock")
    await alive(turns)
    first = await held_by(turns, turn_id)
    assert await turns.claim_tools(turn_id, 0, OTHER) is None
    await Upkeep(turns.database).give_up_lease(OWNER)
    second = await held_by(turns, turn_id, OTHER)
    assert second.epoch == first.epoch + 1


async def test_results_open_the_next_round_and_come_in_order(turns: Turns, user_id: str) -> None:
    held = await held_by(turns, await calling(turns, user_id, "a", "b", "c"))
    assert await turns.finish_tools(held, results_of(held, "1", "2", "3"))
    stand = await turns.stand(held.turn_id)
    assert stand is not None
    assert (stand.state, stand.round) == (TurnState.PREPARED, 1)
    query = "SELECT content AS value FROM messages WHERE role = 'tool' ORDER BY ord"
    assert await column(turns.database, query) == ["1", "2", "3"]


async def test_a_fenced_owner_s_results_write_nothing(turns: Turns, user_id: str) -> None:
    turn_id = await calling(turns, user_id, "clock")
    old = await held_by(turns, turn_id)
    new = await held_by(turns, turn_id, OTHER)
    assert not await turns.finish_tools(old, results_of(old, "old"))
    assert await turns.finish_tools(new, results_of(new, "new"))
    query = "SELECT content AS value FROM messages WHERE role = 'tool'"
    assert await column(turns.database, query) == ["new"]
    assert not await turns.finish_tools(new, results_of(new, "again"))


async def test_the_next_round_goes_on_from_what_was_shown_and_is_no_new_attempt(turns: Turns, user_id: str) -> None:
    held = await held_by(turns, await calling(turns, user_id, "clock"))
    await turns.finish_tools(held, results_of(held, "noon"))
    assert await turns.claim(held.turn_id, 0, OWNER) is None
    again = await claimed(turns, held.turn_id, round=1)
    said = reply("Let me see.")
    assert (again.shown_index, again.shown_length, again.shown_digest) == (1, 11, said.shown_digest)
    assert (again.attempts, again.taken_over) == (1, False)
    assert again.usage is not None
    assert again.usage["completion_tokens"] == Usage(completion_tokens=1).completion_tokens


async def test_a_round_that_was_taken_over_counts_as_an_attempt(turns: Turns, user_id: str) -> None:
    held = await held_by(turns, await calling(turns, user_id, "clock"))
    await turns.finish_tools(held, results_of(held, "noon"))
    await claimed(turns, held.turn_id, round=1)
    assert (await claimed(turns, held.turn_id, round=1, owner=OTHER)).attempts == 2
