"""Runs the tool_execution stage: `python -m workers.tool_execution`."""

from __future__ import annotations

import asyncio
import os
import sys

from ops.runtime import process
from schemas.streams import TOOL_EXECUTION
from schemas.turns import TurnToolsCalled
from workers.engines.tools.shelf import standard_shelf
from workers.stage import Stage
from workers.tool_execution.calls import CallRunner
from workers.tool_execution.handlers import ToolExecution

SLOTS = 64
"""Rounds of calls at once."""


async def main(stopping: asyncio.Event) -> None:
    """Wire the stage and serve."""
    stage = await Stage.open(TOOL_EXECUTION.stage)
    shelf = standard_shelf(stage.config.app.environment, os.environ)
    runner = CallRunner(stage.turns, shelf, stage.config.tools.call_timeout)
    door = ToolExecution(stage, runner)
    stage.on(TOOL_EXECUTION, TurnToolsCalled, door.on_tools_called, slots=SLOTS)
    stage.also(door.attention.run)
    await stage.serve(stopping)


if __name__ == "__main__":
    sys.exit(process.run(main))
