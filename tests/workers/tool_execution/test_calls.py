"""One tool call: its effect happens at most once, and whatever happens is an answer to the model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.workers.asked import OTHER, OWNER, column
from tests.workers.tool_execution.toolbox import Watched, one_call
from workers.delivery import Fenced
from workers.engines.tools.shelf import ToolShelf
from workers.storage.turn_rows import AskedCall, CallStart, ToolsClaimed
from workers.storage.turns import QUERIES, STOPPED_BEFORE, Turns
from workers.tool_execution.calls import BROKEN_OFF, NO_ANSWER, UNKNOWN_OUTCOME, UNKNOWN_TOOL, CallRunner

ALL = frozenset({"tea", "pay"})


@pytest.fixture
async def tea() -> Watched:
    """A tool that may be used again."""
    return Watched("tea")


@pytest.fixture
async def pay() -> Watched:
    """A tool whose effect must happen once."""
    return Watched("pay", idempotent=False)


@pytest.fixture
def runner(turns: Turns, tea: Watched, pay: Watched) -> CallRunner:
    return CallRunner(turns, ToolShelf([tea, pay]), timeout=0.05)


async def recorded(turns: Turns, call: AskedCall) -> tuple[str, str | None]:
    query = "SELECT ARRAY[status, result] AS value FROM tool_calls WHERE id = %(a)s"
    status, result = (await column(turns.database, query, call.id))[0]
    return status, result


async def taken(turns: Turns, call: AskedCall) -> ToolsClaimed:
    """The call's turn in this worker's hands."""
    turn_id = (await column(turns.database, "SELECT turn_id AS value FROM tool_calls WHERE id = %(a)s", call.id))[0]
    claimed = await turns.claim_tools(turn_id, 0, OWNER)
    assert claimed is not None
    return claimed


async def run(
    runner: CallRunner,
    turns: Turns,
    call: AskedCall,
    allowed: frozenset[str] = ALL,
    stop: asyncio.Event | None = None,
) -> str:
    """Claim the call's turn and run the call as it is recorded."""
    claimed = await taken(turns, call)
    recorded = (await turns.asked_calls(claimed.turn_id, 0))[0]
    return await runner.run(claimed, recorded, allowed, stop or asyncio.Event())


async def stopped(turns: Turns, call: AskedCall) -> None:
    """Let the call's turn be stopped."""
    claimed = await taken(turns, call)
    assert await turns.stop(claimed.user_id, [claimed.turn_id])


async def test_a_call_is_run_with_its_arguments_and_recorded(
    runner: CallRunner, turns: Turns, user_id: str, tea: Watched
) -> None:
    call = await one_call(turns, user_id, "tea", '{"say": "Earl Grey"}')
    assert await run(runner, turns, call) == "Earl Grey"
    assert tea.effects == [{"say": "Earl Grey"}]
    assert await recorded(turns, call) == ("done", "Earl Grey")


async def test_a_call_without_arguments_is_run_with_none(
    runner: CallRunner, turns: Turns, user_id: str, tea: Watched
) -> None:
    await run(runner, turns, await one_call(turns, user_id, "tea", ""))
    assert tea.effects == [{}]


async def test_a_call_that_is_done_is_not_run_again(
    runner: CallRunner, turns: Turns, user_id: str, tea: Watched
) -> None:
    call = await one_call(turns, user_id, "tea", '{"say": "once"}')
    await run(runner, turns, call)
    assert await run(runner, turns, call) == "once"
    assert len(tea.effects) == 1


@pytest.mark.parametrize("allowed", [ALL, frozenset({"tea"}), frozenset[str]()])
async def test_a_tool_that_does_not_exist_or_was_not_given_is_denied(
    runner: CallRunner, turns: Turns, user_id: str, pay: Watched, allowed: frozenset[str]
) -> None:
    name = "invented" if allowed == ALL else "pay"
    call = await one_call(turns, user_id, name)
    assert await run(runner, turns, call, allowed) == UNKNOWN_TOOL
    assert await recorded(turns, call) == ("denied", UNKNOWN_TOOL)
    assert pay.effects == []


@pytest.mark.parametrize("arguments", ["{", "[]", "null", "7", '"tea"', "{'do': 1}", "{} {}"])
async def test_arguments_that_are_no_json_object_have_no_effect(
    runner: CallRunner, turns: Turns, user_id: str, pay: Watched, arguments: str
) -> None:
    call = await one_call(turns, user_id, "pay", arguments)
    assert await run(runner, turns, call) == "The arguments are not a JSON object."
    assert (await recorded(turns, call))[0] == "failed"
    assert pay.effects == []


async def test_a_tool_that_cannot_tells_the_model_what_to_do_differently(
    runner: CallRunner, turns: Turns, user_id: str
) -> None:
    call = await one_call(turns, user_id, "tea", '{"do": "fail"}')
    assert await run(runner, turns, call) == "Ask for tea instead."
    assert await recorded(turns, call) == ("failed", "Ask for tea instead.")


async def test_a_tool_that_takes_too_long_is_ended(runner: CallRunner, turns: Turns, user_id: str) -> None:
    call = await one_call(turns, user_id, "tea", '{"do": "wait"}')
    assert await run(runner, turns, call) == "The tool did not answer within 0.05 seconds."
    assert (await recorded(turns, call))[0] == "failed"


async def test_a_tool_that_breaks_is_an_answer_too_and_its_words_stay_out_of_logs(
    runner: CallRunner, turns: Turns, user_id: str
) -> None:
    call = await one_call(turns, user_id, "tea", '{"do": "break"}')
    with capture_logs() as logs:
        assert await run(runner, turns, call) == "The tool broke. Answer without it."
    assert [line["event"] for line in logs] == ["tool_broke", "tool_called"]
    assert "secret" not in str(logs)


async def test_a_tool_that_cancels_itself_is_broken(runner: CallRunner, turns: Turns, user_id: str) -> None:
    call = await one_call(turns, user_id, "tea", '{"do": "cancel"}')
    assert await run(runner, turns, call) == "The tool broke. Answer without it."


@pytest.mark.parametrize("do", ["wait", "break", "cancel"])
async def test_of_a_call_that_comes_to_no_end_nobody_knows_whether_it_had_its_effect(
    runner: CallRunner, turns: Turns, user_id: str, pay: Watched, do: str
) -> None:
    call = await one_call(turns, user_id, "pay", f'{{"do": "{do}"}}')
    assert await run(runner, turns, call) == NO_ANSWER
    assert await recorded(turns, call) == ("unknown", NO_ANSWER)
    assert len(pay.effects) == 1


async def test_a_tool_s_own_word_that_it_could_not_is_believed(runner: CallRunner, turns: Turns, user_id: str) -> None:
    call = await one_call(turns, user_id, "pay", '{"do": "fail"}')
    assert await run(runner, turns, call) == "Ask for tea instead."
    assert (await recorded(turns, call))[0] == "failed"


async def test_what_cannot_be_stored_is_left_out_of_an_answer(runner: CallRunner, turns: Turns, user_id: str) -> None:
    call = await one_call(turns, user_id, "tea", '{"say": "a\\u0000b"}')
    assert await run(runner, turns, call) == "ab"
    assert await recorded(turns, call) == ("done", "ab")


async def lose(runner: CallRunner, turns: Turns, call: AskedCall, tool: Watched) -> None:
    """Let the worker die in the middle of the call."""
    task = asyncio.create_task(run(runner, turns, call))
    await tool.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_effect_that_may_have_happened_does_not_happen_again(turns: Turns, user_id: str, pay: Watched) -> None:
    runner = CallRunner(turns, ToolShelf([pay]), timeout=60)
    call = await one_call(turns, user_id, "pay", '{"do": "wait"}')
    await lose(runner, turns, call, pay)
    assert await recorded(turns, call) == ("started", None)
    assert await run(runner, turns, call) == UNKNOWN_OUTCOME
    assert await recorded(turns, call) == ("unknown", UNKNOWN_OUTCOME)
    assert len(pay.effects) == 1


async def test_a_tool_that_may_be_used_again_is(turns: Turns, user_id: str, tea: Watched) -> None:
    runner = CallRunner(turns, ToolShelf([tea]), timeout=60)
    call = await one_call(turns, user_id, "tea", '{"do": "wait", "say": "hot"}')
    await lose(runner, turns, call, tea)
    tea.go_on.set()
    assert await run(runner, turns, call) == "hot"
    assert len(tea.effects) == 2


async def test_of_two_deliveries_of_one_call_one_has_the_effect(turns: Turns, user_id: str, pay: Watched) -> None:
    runner = CallRunner(turns, ToolShelf([pay]), timeout=60)
    for _ in range(5):
        call = await one_call(turns, user_id, "pay")
        claimed = await taken(turns, call)
        before = len(pay.effects)
        await asyncio.gather(*(runner.run(claimed, call, ALL, asyncio.Event()) for _ in range(3)))
        assert len(pay.effects) == before + 1


async def test_an_owner_that_was_followed_starts_no_call(
    runner: CallRunner, turns: Turns, user_id: str, tea: Watched
) -> None:
    call = await one_call(turns, user_id, "tea")
    old = await taken(turns, call)
    await taken(turns, call)
    with pytest.raises(Fenced):
        await runner.run(old, call, ALL, asyncio.Event())
    assert tea.effects == []


async def test_after_the_stop_no_call_begins(runner: CallRunner, turns: Turns, user_id: str, tea: Watched) -> None:
    call = await one_call(turns, user_id, "tea")
    await stopped(turns, call)
    assert await run(runner, turns, call) == STOPPED_BEFORE
    assert await recorded(turns, call) == ("denied", STOPPED_BEFORE)
    assert tea.effects == []


async def test_a_call_that_runs_when_the_stop_is_heard_is_broken_off(turns: Turns, user_id: str, tea: Watched) -> None:
    runner, stop = CallRunner(turns, ToolShelf([tea]), timeout=60), asyncio.Event()
    call = await one_call(turns, user_id, "tea", '{"do": "wait"}')
    work = asyncio.create_task(run(runner, turns, call, ALL, stop))
    await tea.started.wait()
    stop.set()
    assert await work == BROKEN_OFF
    assert await recorded(turns, call) == ("unknown", BROKEN_OFF)


async def test_a_call_that_a_lost_worker_had_started_is_not_begun_again_after_the_stop(
    turns: Turns, user_id: str, tea: Watched
) -> None:
    runner = CallRunner(turns, ToolShelf([tea]), timeout=60)
    call = await one_call(turns, user_id, "tea", '{"do": "wait"}')
    await lose(runner, turns, call, tea)
    await stopped(turns, call)
    assert await run(runner, turns, call) == BROKEN_OFF
    assert await recorded(turns, call) == ("unknown", BROKEN_OFF)
    assert len(tea.effects) == 1


async def waits(turns: Turns, task: asyncio.Task[Any]) -> bool:
    """Whether the task comes to wait for a lock, rather than to its end."""
    waiting = "SELECT count(*) AS value FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    waiting += " AND datname = current_database()"
    async with asyncio.timeout(10):
        while not task.done():
            if await column(turns.database, waiting) != [0]:
                return True
    return False


async def test_a_stop_and_a_start_at_once_come_one_after_the_other(turns: Turns, user_id: str) -> None:
    """The stop waits for the start's commit, or the start sees the stop: never both unseen."""
    call = await one_call(turns, user_id, "tea")
    claimed = await taken(turns, call)
    async with turns.database.transaction() as held:
        assert await turns.stop(claimed.user_id, [claimed.turn_id], held)
        starting = asyncio.create_task(turns.start_call(claimed, call.id))
        assert await waits(turns, starting)
    assert await starting == CallStart(stopped=True, first=False)
    assert await recorded(turns, call) == ("asked", None)


async def test_a_start_sees_a_takeover_that_is_about_to_be_committed(turns: Turns, user_id: str) -> None:
    call = await one_call(turns, user_id, "pay")
    old = await taken(turns, call)
    follow = {"turn_id": old.turn_id, "round": 0, "owner": OTHER}
    async with turns.database.transaction() as held:
        assert await held.one(QUERIES["claim_tools"], follow, ToolsClaimed) is not None
        starting = asyncio.create_task(turns.start_call(old, call.id))
        assert await waits(turns, starting)
    assert await starting is None
    assert await recorded(turns, call) == ("asked", None)


async def test_a_takeover_sees_a_start_that_is_about_to_be_committed(turns: Turns, user_id: str) -> None:
    call = await one_call(turns, user_id, "pay")
    old = await taken(turns, call)
    start = {"turn_id": old.turn_id, "epoch": old.epoch, "id": call.id}
    async with turns.database.transaction() as held:
        assert await held.one(QUERIES["start_call"], start, CallStart) == CallStart(stopped=False, first=True)
        taking = asyncio.create_task(turns.claim_tools(old.turn_id, 0, OTHER))
        assert await waits(turns, taking)
    assert await taking is not None
    assert [call.status for call in await turns.asked_calls(old.turn_id, 0)] == ["started"]
