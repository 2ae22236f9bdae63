"""What tests of acceptance ask for, and what they look at."""

from __future__ import annotations

from typing import Any

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas import codec
from schemas.context import ContextBundle
from schemas.openai import AssistantMessage, SystemMessage, UserMessage
from schemas.turns import TurnRequested
from tests.workers.asked import asked, chat, claimed, column
from workers.context_fetch.acceptance import Acceptance
from workers.endings import Endings
from workers.engines.tools.shelf import ToolShelf
from workers.stopping import Stopping
from workers.storage.arrivals import Arrivals
from workers.storage.turns import Turns

SHARDS = 4
HOUSE, U1, A1, U2 = (
    SystemMessage(content="Be brief."),
    UserMessage(content="one"),
    AssistantMessage(content="yes"),
    UserMessage(content="two"),
)


def acceptance_with(turns: Turns, bus: Bus, config: Config, limit: int | None = None) -> Acceptance:
    """Takes turns in, as a stage with this configuration does."""
    arrivals = Arrivals(turns.database, limit)
    return Acceptance(arrivals, Stopping(turns, Endings(turns, arrivals, bus), bus), config, ToolShelf())


def in_session(user_id: str, session_id: str, words: Any = "Hi", **options: Any) -> TurnRequested:
    """A turn asked for in a session."""
    return asked(user_id, chat(words, cozy={"session_id": session_id, **options}))


def turns_of(acceptance: Acceptance) -> Turns:
    """The turns that it takes in."""
    return Turns(acceptance.arrivals.database)


async def bundle_of(turns: Turns, turn_id: str) -> ContextBundle:
    """What the turn is generated from; claims it."""
    held = await claimed(turns, turn_id)
    return codec.decode(held.bundle, ContextBundle)


async def count(turns: Turns, table: str) -> int:
    """How many rows a table has."""
    return int((await column(turns.database, f"SELECT count(*) AS value FROM {table}"))[0])
