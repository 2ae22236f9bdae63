"""Runs the context_fetch stage: `python -m workers.context_fetch`."""

from __future__ import annotations

import asyncio
import os
import sys

from ops.runtime import process
from schemas.streams import CONTEXT_FETCH
from schemas.turns import TurnArrival
from workers.context_fetch.acceptance import Acceptance
from workers.context_fetch.handlers import ContextFetch
from workers.engines.tools.shelf import standard_shelf
from workers.stage import Stage
from workers.stopping import Stopping

SLOTS = 64
"""Turns taken in at once; each waits for PostgreSQL most of its time."""


async def main(stopping: asyncio.Event) -> None:
    """Wire the stage and serve."""
    stage = await Stage.open(CONTEXT_FETCH.stage, uses_models=True)
    shelf = standard_shelf(stage.config.app.environment, os.environ)
    acceptance = Acceptance(stage.arrivals, Stopping(stage.turns, stage.endings, stage.bus), stage.config, shelf)
    door = ContextFetch(acceptance, stage.turns, stage.endings, stage.bus)
    stage.on(CONTEXT_FETCH, TurnArrival, door.on_turn_arrival, slots=SLOTS)
    await stage.serve(stopping)


if __name__ == "__main__":
    sys.exit(process.run(main))
