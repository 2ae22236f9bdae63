"""What tests of the stages begin with: a configuration, the turns of an empty database, and somebody who asks."""

from __future__ import annotations

import pytest

from ops.runtime import config as configuration
from ops.runtime.config import Config
from tests import properties
from tests.workers.storage.rows import add_user
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
