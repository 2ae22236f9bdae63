"""CPU and memory of the listed processes while a load runs."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from ops.load.processes import Listed, Watch, listed


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.fixture
def idle() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for a line and ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
async def watch() -> AsyncIterator[Callable[..., Watch]]:
    """Starts watches, which look a hundred times a second, and closes them."""
    async with AsyncExitStack() as stack:

        def start(*entries: Listed) -> Watch:
            started = Watch(entries, period=0.01)
            stack.callback(started.close)
            return started

        yield start


async def test_only_the_time_inside_is_counted_and_several_times_add_up(watch: Callable[..., Watch]) -> None:
    watching = watch(Listed("gateway", os.getpid()))
    burn(0.3)
    for _ in range(2):
        async with watching:
            burn(0.1)
        burn(0.1)
    assert watching.processes(tokens=1, streams=1).each[0].cpu_s == pytest.approx(0.2, abs=0.08)


async def test_the_model_server_is_shown_but_not_summed(
    watch: Callable[..., Watch], idle: subprocess.Popen[bytes]
) -> None:
    watching = watch(Listed("scripted", os.getpid()), Listed("nats", idle.pid))
    async with watching:
        burn(0.1)
    found = watching.processes(tokens=1000, streams=1)
    assert found.each[0].cpu_s >= 0.08
    assert found.ours_cpu_s == found.each[1].cpu_s
    assert found.ours_rss_peak_kb == found.each[1].rss_peak_kb


async def test_tokens_are_set_against_the_cpu_time_of_ours(watch: Callable[..., Watch]) -> None:
    watching = watch(Listed("nats", os.getpid()))
    async with watching:
        burn(0.1)
    found = watching.processes(tokens=1000, streams=1)
    assert found.tokens_per_cpu_s == pytest.approx(1000 / found.ours_cpu_s)


async def test_growth_of_the_gateway_is_its_peak_less_what_it_had_before_for_each_stream(
    watch: Callable[..., Watch],
) -> None:
    watching = watch(Listed("gateway", os.getpid()))
    async with watching, asyncio.timeout(5):
        before = watching.processes(tokens=1, streams=100).each[0].rss_before_kb
        held = bytearray(b"x" * 80_000_000)
        # A look leaves nothing to wait for but its figures.
        while watching.processes(tokens=1, streams=100).each[0].rss_peak_kb < before + 78_000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert watching.processes(tokens=1, streams=100).each[0].rss_before_kb == before
        del held
    found = watching.processes(tokens=1, streams=100)
    [gateway] = found.each
    assert found.gateway_kb_per_stream == pytest.approx((gateway.rss_peak_kb - before) / 100)
    assert gateway.rss_peak_kb >= before + 78_000
    assert gateway.rss_after_kb < gateway.rss_peak_kb - 70_000


async def test_a_process_that_ends_meanwhile_is_marked(
    watch: Callable[..., Watch], idle: subprocess.Popen[bytes]
) -> None:
    watching = watch(Listed("generation", idle.pid), Listed("gateway", os.getpid()))
    async with watching:
        idle.communicate(b"\n")
    assert [one.gone for one in watching.processes(tokens=1, streams=1).each] == [True, False]


def test_run_json_is_read_and_may_say_more_than_we_need(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('[{"name": "nats", "pid": 7, "url": null, "more": 1}, {"name": "gateway", "pid": 8}]')
    assert listed(path) == [Listed("nats", 7), Listed("gateway", 8)]


def test_a_run_json_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('[{"name": "nats"}]')
    with pytest.raises(msgspec.DecodeError, match="pid"):
        listed(path)
