"""The shared clock: in time, in order, and not stopped by one failing tick."""

import asyncio
import time

from ops.local.scripted.pace import Pace


async def test_ticks_come_in_time_and_in_order() -> None:
    pace, came = Pace(asyncio.get_running_loop()), asyncio.Event()
    start, seen = time.monotonic(), list[tuple[str, float]]()

    def noting(name: str) -> None:
        pace.at(start + float(name), lambda _: seen.append((name, time.monotonic() - start)))

    for name in ("0.03", "0.01", "0.02"):
        noting(name)
    pace.at(start + 0.04, lambda _: came.set())
    async with asyncio.timeout(5):
        await came.wait()
    assert [name for name, _ in seen] == ["0.01", "0.02", "0.03"]
    assert all(at >= float(name) - 0.0011 for name, at in seen)


async def test_a_tick_may_ask_for_the_next_one() -> None:
    pace, done = Pace(asyncio.get_running_loop()), asyncio.Event()
    left = 5

    def tick(now: float) -> None:
        nonlocal left
        left -= 1
        if left:
            pace.at(now, tick)
        else:
            done.set()

    pace.at(time.monotonic(), tick)
    async with asyncio.timeout(5):
        await done.wait()
    assert left == 0


async def test_a_failing_tick_is_reported_and_the_others_go_on() -> None:
    loop, done, told = asyncio.get_running_loop(), asyncio.Event(), list[object]()
    previous = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    try:
        pace, now, error = Pace(loop), time.monotonic(), RuntimeError("scripted")

        def failing(_: float) -> None:
            raise error

        pace.at(now, failing)
        pace.at(now, lambda _: done.set())
        async with asyncio.timeout(5):
            await done.wait()
    finally:
        loop.set_exception_handler(previous)
    assert told == [error]
