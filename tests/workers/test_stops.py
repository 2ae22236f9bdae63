"""Hearing that a turn was stopped, and breaking off what it was busy with."""

from __future__ import annotations

import asyncio

import pytest

from ops.runtime.bus import Bus
from schemas import subjects
from schemas.ids import new_id
from workers.stops import Stopped, Stops, unless


@pytest.fixture
async def stops(bus: Bus) -> Stops:
    stops = Stops(bus)
    await stops.open()
    return stops


async def say_stop(bus: Bus, turn_id: str) -> None:
    await bus.publish(subjects.cancel(turn_id), b"")
    await bus.flush()


async def test_a_stop_is_heard_by_everyone_who_has_the_turn_and_by_nobody_else(stops: Stops, bus: Bus) -> None:
    turn_id = new_id()
    with stops.of(turn_id) as one, stops.of(turn_id) as other, stops.of(new_id()) as stranger:
        await say_stop(bus, turn_id)
        await asyncio.gather(one.wait(), other.wait())
        assert not stranger.is_set()


async def test_a_turn_that_is_left_is_not_listened_for(stops: Stops, bus: Bus) -> None:
    turn_id = new_id()
    with stops.of(turn_id) as kept:
        with stops.of(turn_id) as left:
            pass
        await say_stop(bus, turn_id)
        await kept.wait()
    assert not left.is_set()
    assert not stops._listening


async def test_the_callback_is_called_once_however_often_stop_is_said(stops: Stops, bus: Bus) -> None:
    turn_id, heard = new_id(), []
    with stops.of(turn_id, lambda: heard.append(turn_id)) as stop:
        await say_stop(bus, turn_id)
        await say_stop(bus, turn_id)
        await stop.wait()
    assert heard == [turn_id]


async def test_work_is_broken_off_by_the_stop() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    with pytest.raises(Stopped):
        async with unless(stop):
            await asyncio.Event().wait()


async def test_work_that_a_stop_has_forestalled_does_not_begin_to_wait() -> None:
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(Stopped):
        async with unless(stop):
            await asyncio.Event().wait()


async def test_what_happens_within_comes_out_as_it_is() -> None:
    async with unless(asyncio.Event()):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with unless(asyncio.Event()):
            raise TimeoutError


async def test_whoever_is_cancelled_from_outside_is_cancelled() -> None:
    async def work() -> None:
        async with unless(asyncio.Event()):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
