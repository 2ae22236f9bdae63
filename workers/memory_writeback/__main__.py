"""Runs the memory_writeback stage: `python -m workers.memory_writeback`."""

from __future__ import annotations

import asyncio
import sys

from ops.runtime import process
from schemas.streams import MEMORY_WRITEBACK
from schemas.turns import TurnCompleted
from workers.backlog import Backlog
from workers.memory_writeback.handlers import MemoryWriteback
from workers.stage import Stage
from workers.storage.memory import MemoryShelf
from workers.sweeper import Sweeper

SLOTS = 32
"""Turns noted at once."""


async def main(stopping: asyncio.Event) -> None:
    """Wire the stage and serve. The sweeper lives here because this stage is never in a reply's way."""
    stage = await Stage.open(MEMORY_WRITEBACK.stage)
    door = MemoryWriteback(MemoryShelf(stage.database))
    stage.on(MEMORY_WRITEBACK, TurnCompleted, door.on_turn_completed, slots=SLOTS)
    stage.also(Sweeper(stage.upkeep, stage.endings, stage.bus, stage.config.storage).run)
    stage.also(Backlog(stage.bus).run)
    await stage.serve(stopping)


if __name__ == "__main__":
    sys.exit(process.run(main))
