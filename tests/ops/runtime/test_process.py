"""How a process lives: it stops when it is asked to, and says why it cannot start."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

PRELUDE = """
import asyncio, sys
from ops.runtime import process
from ops.runtime.settings import ConfigError

async def main(stopping):
"""
WAITS = '    print("up", flush=True)\n    await stopping.wait()\n    print("done", flush=True)\n'
WRONG = '    raise ConfigError("app.yaml: name: wrong", "api.yaml: port: wrong")\n'
BREAKS = '    raise LookupError("broken")\n'
RETURNS = "    return None\n"
LOOP = "    print(type(asyncio.get_running_loop()).__module__)\n"


async def started(body: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{PRELUDE}{body}\nsys.exit(process.run(main))", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Its exit status and what it said."""
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_that_is_asked_to_stop_ends_its_work_and_says_that_all_is_well(number: signal.Signals) -> None:
    process = await started(WAITS)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"up\n"
    process.send_signal(number)
    assert await ended(process) == (0, "done\n", "")


async def test_a_wrong_configuration_is_told_line_by_line() -> None:
    status, out, err = await ended(await started(WRONG))
    assert (status, out, err) == (78, "", "app.yaml: name: wrong\napi.yaml: port: wrong\n")


async def test_a_process_that_breaks_says_where() -> None:
    status, _, err = await ended(await started(BREAKS))
    assert status == 1
    assert "LookupError" in err


async def test_a_process_that_is_done_ends() -> None:
    assert (await ended(await started(RETURNS)))[0] == 0


async def test_it_runs_on_the_fast_loop() -> None:
    assert "uvloop" in (await ended(await started(LOOP)))[1]


async def test_a_process_asked_for_help_says_how_it_is_configured_and_does_not_start() -> None:
    status, out, err = await ended(await started(BREAKS, "--help"))
    assert (status, err) == (0, "")
    assert "takes no arguments" in out


async def test_a_process_refuses_arguments_and_does_not_start() -> None:
    status, out, err = await ended(await started(BREAKS, "--port", "9000"))
    assert (status, out) == (64, "")
    assert "unknown arguments: --port 9000" in err
