"""Somebody who accepts turns, and a session to ask in."""

from __future__ import annotations

import msgspec
import pytest

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from tests.workers.context_fetch.accepting import (
    SHARDS,
    acceptance_with,
)
from tests.workers.storage.rows import add_session
from workers.context_fetch.acceptance import Acceptance
from workers.storage.turns import Turns


@pytest.fixture
def acceptance(turns: Turns, bus: Bus, config: Config) -> Acceptance:
    sharded = msgspec.structs.replace(config, storage=msgspec.structs.replace(config.storage, shards=SHARDS))
    return acceptance_with(turns, bus, sharded)


@pytest.fixture
async def session_id(turns: Turns, user_id: str) -> str:
    return await add_session(turns.database, user_id, personality_id="tutor")
