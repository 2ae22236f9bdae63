"""A silence counts for as long as somebody could have ended it."""

from __future__ import annotations

import asyncio
import os

import psutil
import pytest
from aiohttp import web

from ops.drills.stack import Stack
from ops.drills.watch import Span, Watch, in_the_light, is_dark
from ops.local.run_file import Entry, RunFile


@pytest.mark.parametrize(
    ("dark", "left"),
    [
        ([], 4),
        ([(11, 12)], 3),
        ([(0, 11)], 3),
        ([(13, 99)], 3),
        ([(0, 99)], 0),
        ([(0, 9), (15, 99)], 4),
        ([(10.5, 11), (12, 13)], 2.5),
    ],
)
def test_what_is_left_of_a_silence_in_the_light(dark: list[Span], left: float) -> None:
    assert in_the_light(10, 4, dark) == left


@pytest.mark.parametrize(("ready", "dark"), [([True, True], False), ([True, False], False), ([False, False], True)])
def test_a_pool_is_dark_where_none_of_it_is_ready(ready: list[bool], dark: bool) -> None:
    entries = [Entry(name=name, pid=1, url="") for name in ("generation", "generation.2")]
    records = (Entry(name="records", pid=2, url=""), True)
    assert is_dark([*zip(entries, ready, strict=True), records]) is dark


async def test_the_time_in_which_a_stage_is_not_ready_is_noted(stack: Stack) -> None:
    ready = asyncio.Event()
    asked = asyncio.Semaphore(0)

    async def readyz(_: web.Request) -> web.Response:
        asked.release()
        return web.Response(status=200 if ready.is_set() else 503)

    app = web.Application()
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    started_at = psutil.Process().create_time()
    RunFile(stack.data / "run.json").record(Entry(name="generation", pid=os.getpid(), url=url, started_at=started_at))
    async with Watch(stack) as watch, asyncio.timeout(10):
        for _ in range(3):
            await asked.acquire()
        ready.set()
        for _ in range(3):
            await asked.acquire()
        [(since, until)] = watch.dark
    assert 0.2 < until - since < 2
    await runner.cleanup()
