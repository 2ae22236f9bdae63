"""How a process lives: one event loop, a stop asked for by SIGTERM or SIGINT, a start that says why it cannot."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from ops.runtime.config import ConfigError

EX_USAGE = 64
EX_CONFIG = 78


def run(main: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `main(stopping)` until it returns; SIGTERM and SIGINT set `stopping`. Gives the exit status.

    A wrong configuration ends with status 78 and one line a mistake on standard error. Arguments mean nothing to a
    process that is configured by files and environment: asked for help it helps, any other ends it with status 64.
    """
    if sys.argv[1:]:
        return _explain(sys.argv[1:])
    # Turns make many short-lived objects and few cycles: collecting the young ones less often saves a tenth of CPU.
    gc.set_threshold(20_000, 20, 50)

    async def body() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await main(stopping)

    try:
        uvloop.run(body())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    return 0


def _explain(arguments: list[str]) -> int:
    """Say what this process is, instead of starting it."""
    about = sys.modules["__main__"].__doc__ or "A process of CozyEngine."
    told = (
        f"{about.strip()}\n\nIt takes no arguments: ops/config/*.yaml and the environment say how it runs (README.md)."
    )
    if arguments[0] in ("-h", "--help"):
        print(told)
        return 0
    print(f"unknown arguments: {' '.join(arguments)}\n{told}", file=sys.stderr)
    return EX_USAGE
