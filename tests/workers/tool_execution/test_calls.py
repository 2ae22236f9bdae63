"""One tool call: its effect happens at most once, and whatever happens is an answer to the model."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.workers.asked import column
from tests.workers.tool_execution.toolbox import Watched, one_call
from workers.engines.tools.shelf import ToolShelf
from workers.storage.turn_rows import AskedCall
from workers.storage.turns import Turns
from workers.tool_execution.calls import UNKNOWN_OUTCOME, UNKNOWN_TOOL, CallRunner

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


async def again(turns: Turns, call: AskedCall) -> AskedCall:
    """The call as another worker reads it."""
    turn_id = (await column(turns.database, "SELECT turn_id AS value FROM tool_calls WHERE id = %(a)s", call.id))[0]
    return (await turns.asked_calls(turn_id, 0))[0]


async def test_a_call_is_run_with_its_arguments_and_recorded(
    runner: CallRunner, turns: Turns, user_id: str, tea: Watched
) -> None:
    call = await one_call(turns, user_id, "tea", '{"say": "Earl Grey"}')
    assert await runner.run(call, ALL) == "Earl Grey"
    assert tea.effects == [{"say": "Earl Grey"}]
    assert await recorded(turns, call) == ("done", "Earl Grey")


async def test_a_call_without_arguments_is_run_with_none(
    runner: CallRunner, turns: Turns, user_id: str, tea: Watched
) -> None:
    await runner.run(await one_call(turns, user_id, "tea", ""), ALL)
    assert tea.effects == [{}]


async def test_a_call_that_is_done_is_not_run_again(
    runner: CallRunner, turns: Turns, user_id: str, tea: Watched
) -> None:
    call = await one_call(turns, user_id, "tea", '{"say": "once"}')
    await runner.run(call, ALL)
    assert await runner.run(await again(turns, call), ALL) == "once"
    assert len(tea.effects) == 1


@pytest.mark.parametrize("allowed", [ALL, frozenset({"tea"}), frozenset[str]()])
async def test_a_tool_that_does_not_exist_or_was_not_given_is_denied(
    runner: CallRunner, turns: Turns, user_id: str, pay: Watched, allowed: frozenset[str]
) -> None:
    name = "invented" if allowed == ALL else "pay"
    call = await one_call(turns, user_id, name)
    assert await runner.run(call, allowed) == UNKNOWN_TOOL
    assert await recorded(turns, call) == ("denied", UNKNOWN_TOOL)
    assert pay.effects == []


@pytest.mark.parametrize("arguments", ["{", "[]", "null", "7", '"tea"', "{'do': 1}", "{} {}"])
async def test_arguments_that_are_no_json_object_have_no_effect(
    runner: CallRunner, turns: Turns, user_id: str, pay: Watched, arguments: str
) -> None:
    call = await one_call(turns, user_id, "pay", arguments)
    assert await runner.run(call, ALL) == "The arguments are not a JSON object."
    assert (await recorded(turns, call))[0] == "failed"
    assert pay.effects == []


async def test_a_tool_that_cannot_tells_the_model_what_to_do_differently(
    runner: CallRunner, turns: Turns, user_id: str
) -> None:
    call = await one_call(turns, user_id, "tea", '{"do": "fail"}')
    assert await runner.run(call, ALL) == "Ask for tea instead."
    assert await recorded(turns, call) == ("failed", "Ask for tea instead.")


async def test_a_tool_that_takes_too_long_is_ended(runner: CallRunner, turns: Turns, user_id: str) -> None:
    call = await one_call(turns, user_id, "tea", '{"do": "wait"}')
    assert await runner.run(call, ALL) == "The tool did not answer within 0.05 seconds."
    assert (await recorded(turns, call))[0] == "failed"


async def test_a_tool_that_breaks_is_an_answer_too_and_its_words_stay_out_of_logs(
    runner: CallRunner, turns: Turns, user_id: str
) -> None:
    call = await one_call(turns, user_id, "tea", '{"do": "break"}')
    with capture_logs() as logs:
        assert await runner.run(call, ALL) == "The tool broke. Answer without it."
    assert [line["event"] for line in logs] == ["tool_broke", "tool_called"]
    assert "secret" not in str(logs)


async def test_what_cannot_be_stored_is_left_out_of_an_answer(runner: CallRunner, turns: Turns, user_id: str) -> None:
    call = await one_call(turns, user_id, "tea", '{"say": "a\\u0000b"}')
    assert await runner.run(call, ALL) == "ab"
    assert await recorded(turns, call) == ("done", "ab")


async def lose(runner: CallRunner, call: AskedCall, tool: Watched) -> None:
    """Let the worker die in the middle of the call."""
    task = asyncio.create_task(runner.run(call, ALL))
    await tool.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_effect_that_may_have_happened_does_not_happen_again(turns: Turns, user_id: str, pay: Watched) -> None:
    runner = CallRunner(turns, ToolShelf([pay]), timeout=60)
    call = await one_call(turns, user_id, "pay", '{"do": "wait"}')
    await lose(runner, call, pay)
    assert await recorded(turns, call) == ("started", None)
    assert await runner.run(await again(turns, call), ALL) == UNKNOWN_OUTCOME
    assert await recorded(turns, call) == ("unknown", UNKNOWN_OUTCOME)
    assert len(pay.effects) == 1


async def test_a_tool_that_may_be_used_again_is(turns: Turns, user_id: str, tea: Watched) -> None:
    runner = CallRunner(turns, ToolShelf([tea]), timeout=60)
    call = await one_call(turns, user_id, "tea", '{"do": "wait", "say": "hot"}')
    await lose(runner, call, tea)
    tea.go_on.set()
    assert await runner.run(await again(turns, call), ALL) == "hot"
    assert len(tea.effects) == 2


async def test_of_two_workers_with_one_call_one_has_the_effect(turns: Turns, user_id: str, pay: Watched) -> None:
    runner = CallRunner(turns, ToolShelf([pay]), timeout=60)
    for _ in range(5):
        call = await one_call(turns, user_id, "pay")
        before = len(pay.effects)
        await asyncio.gather(*(runner.run(call, ALL) for _ in range(3)))
        assert len(pay.effects) == before + 1
