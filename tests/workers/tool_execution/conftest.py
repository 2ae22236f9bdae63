"""Tool workers, and the events they are called by."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas.turns import TurnToolsCalled
from tests.workers.tool_execution.toolbox import Watched
from workers.engines.tools.shelf import ToolShelf
from workers.stage import Stage
from workers.storage.database import Database
from workers.storage.turns import Turns
from workers.tool_execution.calls import CallRunner
from workers.tool_execution.handlers import ToolExecution

MakeDoor = Callable[..., ToolExecution]


@pytest.fixture
def make_door(config: Config, bus: Bus, turns: Turns) -> MakeDoor:
    """Tool workers with these tools."""

    def made(*tools: Watched, database: Database | None = None) -> ToolExecution:
        stage = Stage("tool_execution", config, bus, database or turns.database)
        return ToolExecution(stage, CallRunner(stage.turns, ToolShelf(tools), timeout=60))

    return made


def called(turn_id: str, round: int = 0) -> TurnToolsCalled:
    return TurnToolsCalled(turn_id=turn_id, round=round)
