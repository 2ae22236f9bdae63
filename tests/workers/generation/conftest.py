"""Generation processes whose models follow a script, and turns for them to answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas.openai import UserMessage
from schemas.turns import TurnPrepared, TurnRequested
from tests.workers.asked import BUNDLE, asked, chat, new_turn
from tests.workers.generation.acting import Script, pool_of, resuming
from tests.workers.generation.rounds_made import Read, held, read_out
from workers.generation.handlers import Generation
from workers.generation.pace import Pace
from workers.generation.partials import PartialKeeper
from workers.stage import Stage
from workers.storage.arrivals import Arrivals
from workers.storage.turns import Turns


@pytest.fixture
async def script() -> Script:
    return Script()


MakeDoor = Callable[..., Generation]


@pytest.fixture
def make_door(config: Config, bus: Bus, turns: Turns, script: Script) -> MakeDoor:
    """Generation processes, each its own worker."""

    def made(resume: str = "prefill") -> Generation:
        own = resuming(config, resume)
        stage = Stage("generation", own, bus, turns.database)
        return Generation(stage, pool_of(own, script), PartialKeeper(stage.turns, bus), Pace(0))

    return made


@pytest.fixture
def door(make_door: MakeDoor) -> Generation:
    return make_door()


Asks = Callable[..., Any]


@pytest.fixture
def asks(turns: Turns, user_id: str) -> Asks:
    """Accept a turn, and give its arrival."""

    async def accept(**changes: Any) -> TurnRequested:
        bundle = msgspec.structs.replace(BUNDLE, incoming=(UserMessage(content="Hi"),), **changes.pop("bundle", {}))
        arrival = asked(user_id, chat(**changes))
        assert await Arrivals(turns.database).open(new_turn(arrival, bundle=bundle)) is not None
        return arrival

    return accept


def event_of(arrival: TurnRequested, round: int = 0) -> TurnPrepared:
    return TurnPrepared(turn_id=arrival.turn_id, round=round)


async def state_of(turns: Turns, arrival: TurnRequested) -> str:
    stand = await turns.stand(arrival.turn_id)
    assert stand
    return stand.state


async def reply_of(bus: Bus, arrival: TurnRequested) -> Read:
    return await read_out(bus, held(turn_id=arrival.turn_id))


REPLIES = "SELECT content AS value FROM messages WHERE role = 'assistant' ORDER BY ord"
