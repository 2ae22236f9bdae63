"""Runs the records stage: `python -m workers.records`."""

from __future__ import annotations

import asyncio
import sys

from ops.runtime import process
from workers.records.callers import CallerDesk
from workers.records.handlers import Records
from workers.records.last_used import LastUsed
from workers.records.subscribing import subscribe
from workers.stage import Stage
from workers.stopping import Stopping
from workers.storage.callers import Callers
from workers.storage.sessions import Sessions
from workers.storage.turns_read import TurnsRead


async def main(stopping: asyncio.Event) -> None:
    """Wire the stage and serve."""
    stage = await Stage.open("records")
    last_used = LastUsed(Callers(stage.database))
    records = records_of(stage, last_used)
    subscribe(stage.broker, records.handlers())
    stage.also(last_used.store_for_ever)
    stage.closing.append(last_used.store)
    await stage.serve(stopping)


def records_of(stage: Stage, last_used: LastUsed) -> Records:
    """What answers the questions of an installation configured like this."""
    config, database = stage.config, stage.database
    dev_keys = config.app.environment == "development" and config.security.dev_keys
    callers = CallerDesk(Callers(database), last_used, dev_keys=dev_keys)
    stopping = Stopping(stage.turns, stage.endings, stage.bus)
    return Records(callers, Sessions(database), TurnsRead(database), stopping)


if __name__ == "__main__":
    sys.exit(process.run(main))
