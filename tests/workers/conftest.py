"""What tests of the stages begin with: a configuration, the turns of an empty database, and somebody who asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from ops.runtime import config as configuration
from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas.streams import MEMORY_WRITEBACK, ConsumerSpec
from schemas.turns import TurnCompleted
from tests import properties
from tests.workers.jobs import STAGE
from tests.workers.stages import Running, Work, Works
from tests.workers.storage.rows import add_user
from workers.stage import Stage
from workers.storage.database import Database
from workers.storage.turns import Turns

properties.settle()


@pytest.fixture(scope="session")
def config() -> Config:
    """The shipped configuration with a model server that nobody calls."""
    return configuration.load({"APP_ENV": "test", "SCRIPTED_URL": "http://127.0.0.1:9"})


@pytest.fixture
def turns(database: Database) -> Turns:
    """The turns of the test's own database."""
    return Turns(database)


@pytest.fixture
async def user_id(database: Database) -> str:
    """Somebody who asks."""
    return await add_user(database, "ann")


@pytest.fixture
async def works(config: Config, nats_url: str, bus: Bus, database_url: str) -> AsyncIterator[Works]:
    """Stages of their own connections, as processes have them."""
    running: list[Running] = []

    async def start(
        work: Work,
        *,
        slots: int = 4,
        drain: float = 5,
        spec: ConsumerSpec = MEMORY_WRITEBACK,
        kind: Any = TurnCompleted,
        **storage: Any,
    ) -> Running:
        own = msgspec.structs.replace(
            config,
            app=msgspec.structs.replace(config.app, drain_seconds=drain),
            storage=msgspec.structs.replace(config.storage, **storage),
        )
        database = await Database.open(database_url, size=4, name="stage")
        stage = Stage(STAGE, own, await Bus.connect(nats_url, "stage"), database)
        stage.on(spec, kind, work, slots=slots)
        running.append(Running(stage))
        return running[-1]

    yield start
    for each in running:
        await each.stop()
