"""Waiting for one's turn without holding anything."""

from __future__ import annotations

import asyncio

import pytest

from workers.storage.turnstiles import Turnstiles


async def test_one_at_a_time_goes_through_in_the_order_of_arrival_and_other_names_pass_by() -> None:
    turnstiles, order = Turnstiles(), list[str]()
    inside, leave = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with turnstiles.of("a"):
            inside.set()
            await leave.wait()
            order.append("first")

    async def later(name: str, said: str) -> None:
        async with turnstiles.of(name):
            order.append(said)

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await inside.wait()
        waiting = [group.create_task(later("a", said)) for said in ("second", "third")]
        await later("b", "beside")
        assert not any(task.done() for task in waiting)
        leave.set()
    assert order == ["beside", "first", "second", "third"]


async def test_nothing_is_kept_of_those_who_left_or_failed_or_gave_up_waiting() -> None:
    turnstiles = Turnstiles()

    async def fail() -> None:
        async with turnstiles.of("a"):
            waiting = asyncio.create_task(turnstiles.of("a").__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert (turnstiles._locks, turnstiles._inside) == ({}, {})
