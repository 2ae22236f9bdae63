"""Runs the generation stage: `python -m workers.generation`."""

from __future__ import annotations

import asyncio
import sys

from ops.runtime import process
from schemas import subjects
from schemas.streams import GENERATION
from schemas.turns import TurnPrepared
from workers.engines.ai.pool import EnginePool
from workers.generation.engine_health import EngineWatch
from workers.generation.handlers import Generation
from workers.generation.pace import Pace
from workers.generation.partials import PartialKeeper
from workers.stage import Stage


async def main(stopping: asyncio.Event) -> None:
    """Wire the stage and serve."""
    stage = await Stage.open(GENERATION.stage, uses_models=True)
    settings = stage.config.engines
    engines = EnginePool(stage.config.models, settings.generation)
    await engines.initialize()
    stage.closing.append(engines.close)
    partials, pace = PartialKeeper(stage.turns, stage.bus), Pace(settings.generation.merge_window_max)
    door = Generation(stage, engines, partials, pace)
    stage.on(GENERATION, TurnPrepared, door.on_turn_prepared, slots=settings.generation.max_parallel_turns)
    watch = EngineWatch(engines)
    stage.answers(subjects.ENGINES_HEALTH, watch.answer)
    stage.also(watch.run)
    stage.also(partials.run)
    stage.also(door.attention.run)
    stage.also(pace.measure)
    await stage.serve(stopping)


if __name__ == "__main__":
    sys.exit(process.run(main))
