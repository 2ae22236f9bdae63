"""A worker that was frozen and followed soon leaves its calls alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.workers.asked import OTHER, column
from tests.workers.tool_execution.conftest import MakeDoor, called
from tests.workers.tool_execution.toolbox import Watched, calling
from workers.delivery import Fenced
from workers.storage.turns import Turns
from workers.tool_execution import attention
from workers.tool_execution.calls import UNKNOWN_OUTCOME
from workers.tool_execution.handlers import ToolExecution

RESULTS = "SELECT content AS value FROM messages WHERE role = 'tool' ORDER BY ord"


@pytest.fixture
async def pay() -> Watched:
    """A tool whose effect must happen once."""
    return Watched("pay", idempotent=False)


@pytest.fixture
async def door(make_door: MakeDoor, pay: Watched, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ToolExecution]:
    """A process that looks for lost claims all the time."""
    monkeypatch.setattr(attention, "LOOK_EVERY", 0.01)
    door = make_door(pay)
    looking = asyncio.create_task(door.attention.run())
    yield door
    looking.cancel()


async def begun(door: ToolExecution, pay: Watched, turn_id: str) -> asyncio.Task[None]:
    """A round of calls in the door's hands, the first of them in the middle of its effect."""
    pay.started.clear()
    work = asyncio.create_task(door.on_tools_called(called(turn_id)))
    await pay.started.wait()
    return work


async def fenced(work: asyncio.Task[None]) -> None:
    with pytest.raises(Fenced):
        async with asyncio.timeout(10):
            await work


async def test_calls_that_run_are_broken_off_and_what_is_told_of_them_is_their_new_owner_s(
    door: ToolExecution, make_door: MakeDoor, turns: Turns, user_id: str, pay: Watched
) -> None:
    turn_id = await calling(turns, user_id, ("pay", '{"do": "wait"}'))
    work = await begun(door, pay, turn_id)
    await make_door(pay).on_tools_called(called(turn_id))
    await fenced(work)
    assert len(pay.effects) == 1
    assert await column(turns.database, RESULTS) == [UNKNOWN_OUTCOME]
    assert await column(turns.database, "SELECT status AS value FROM tool_calls") == ["unknown"]


async def test_a_call_that_was_broken_off_is_recorded_as_nothing_but_begun(
    door: ToolExecution, turns: Turns, user_id: str, pay: Watched
) -> None:
    turn_id = await calling(turns, user_id, ("pay", '{"do": "wait"}'))
    work = await begun(door, pay, turn_id)
    assert await turns.claim_tools(turn_id, 0, OTHER) is not None
    await fenced(work)
    assert await column(turns.database, "SELECT status AS value FROM tool_calls") == ["started"]
    assert await column(turns.database, RESULTS) == []


async def test_a_claim_that_holds_is_not_touched_by_another_s_loss(
    door: ToolExecution, turns: Turns, user_id: str, pay: Watched
) -> None:
    lost, held = [await calling(turns, user_id, ("pay", '{"do": "wait", "say": "paid"}')) for _ in range(2)]
    losing, holding = [await begun(door, pay, turn_id) for turn_id in (lost, held)]
    assert await turns.claim_tools(lost, 0, OTHER) is not None
    await fenced(losing)
    pay.go_on.set()
    await holding
    assert await column(turns.database, RESULTS) == ["paid"]
