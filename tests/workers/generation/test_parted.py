"""A worker that is parted from NATS alone: its replies go on elsewhere, unless all workers are parted alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import pytest

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from ops.runtime.topology import consumer_config
from schemas import codec, subjects
from schemas.streams import GENERATION, TURNS
from schemas.turns import TurnPrepared, TurnRequested, TurnState
from tests.cables import Cable, cable_to
from tests.conftest import LEASE_SECONDS
from tests.workers.asked import column
from tests.workers.generation.acting import Script, pool_of, resuming
from tests.workers.generation.conftest import Asks, event_of, reply_of
from tests.workers.generation.rounds_made import chunk, counted
from tests.workers.stages import Running, until
from workers.generation import partials
from workers.generation.handlers import Generation
from workers.generation.pace import Pace
from workers.generation.partials import PartialKeeper
from workers.stage import Stage
from workers.storage.database import Database
from workers.storage.turn_rows import TurnEnd
from workers.storage.turns import Turns

LEASE = 1.5
STRAGGLE = 1.2 * LEASE
"""How much later than the first a worker may come back from an outage for all."""
READY = "SELECT worker_id AS value FROM leases WHERE slots > 0 AND expires_at > now()"

Workers = Callable[[], Awaitable[Cable]]


@pytest.fixture
async def redelivered(bus: Bus) -> AsyncIterator[None]:
    """Messages come again after LEASE."""
    jetstream = bus.client.jetstream(timeout=5)
    await jetstream.add_consumer(TURNS.name, consumer_config(GENERATION, LEASE))
    yield
    await jetstream.add_consumer(TURNS.name, consumer_config(GENERATION, LEASE_SECONDS))


@pytest.fixture
async def workers(
    config: Config,
    nats_url: str,
    redelivered: None,
    database_url: str,
    turns: Turns,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Workers]:
    """Starts generation processes, each with its own way to NATS."""
    monkeypatch.setattr(partials, "EVERY_SECONDS", 0.05)
    own = resuming(config, "prefill")
    own = msgspec.structs.replace(
        own,
        app=msgspec.structs.replace(own.app, drain_seconds=0.1),
        storage=msgspec.structs.replace(own.storage, lease=LEASE),
    )
    async with AsyncExitStack() as leaving:

        async def start() -> Cable:
            cable = await leaving.enter_async_context(cable_to(nats_url))
            database = await Database.open(database_url, size=4, name="worker")
            stage = Stage(GENERATION.stage, own, await Bus.connect(cable.url, "worker"), database)
            keeper = PartialKeeper(stage.turns, stage.bus)
            door = Generation(stage, pool_of(own, script), keeper, Pace(0))
            stage.also(keeper.run)
            stage.on(GENERATION, TurnPrepared, door.on_turn_prepared, slots=4)
            leaving.push_async_callback(Running(stage).stop)
            leaving.callback(cable.join)

            async def is_ready() -> bool:
                return stage.worker_id in await column(turns.database, READY)

            await until(is_ready)
            return cable

        yield start


async def give(bus: Bus, arrival: TurnRequested) -> None:
    event = codec.encode(event_of(arrival))
    await bus.store(subjects.turn_event(subjects.TURN_PREPARED, 0), event, msg_id=None)


async def end_of(turns: Turns, arrival: TurnRequested) -> TurnEnd:
    """How the turn ends."""

    async def has_ended() -> bool:
        return await turns.end_of(arrival.turn_id) is not None

    await until(has_ended)
    end = await turns.end_of(arrival.turn_id)
    assert end
    return end


@pytest.mark.parametrize("lost", [False, True], ids=["silence", "hung up"])
async def test_a_reply_of_a_worker_that_alone_is_parted_goes_on_elsewhere(
    workers: Workers, script: Script, asks: Asks, bus: Bus, turns: Turns, lost: bool
) -> None:
    arrival, speaks_on = await asks(), asyncio.Event()
    script.says([chunk("Once ")], speaks_on, [chunk("in a while")], ends := asyncio.Event(), [chunk(".")])
    script.says([chunk("upon a time.")], [counted(20, 3)])
    cable = await workers()
    await give(bus, arrival)
    await script.silent.wait()
    await workers()
    cable.cut(lost=lost)
    speaks_on.set()  # to nobody: it must not count as shown
    end = await end_of(turns, arrival)
    assert (end.state, end.epoch) == (TurnState.COMPLETED, 2)
    cable.join()
    ends.set()
    assert (await reply_of(bus, arrival)).words == "Once upon a time."


@pytest.mark.parametrize("lost", [False, True], ids=["silence", "hung up"])
async def test_after_an_outage_for_all_a_reply_goes_on_with_its_owner_whoever_is_back_first(
    workers: Workers, script: Script, asks: Asks, bus: Bus, turns: Turns, lost: bool
) -> None:
    arrival, go_on = await asks(), asyncio.Event()
    script.says([chunk("Once ")], go_on, [chunk("upon a time.")], [counted(20, 3)])
    of_owner = await workers()
    await give(bus, arrival)
    await script.silent.wait()
    of_other = await workers()
    for cable in (of_owner, of_other):
        cable.cut(lost=lost)
    await asyncio.sleep(2 * LEASE)
    of_other.join()
    await asyncio.sleep(STRAGGLE)
    of_owner.join()
    go_on.set()
    end = await end_of(turns, arrival)
    assert (end.state, end.epoch) == (TurnState.COMPLETED, 1)
    assert (await reply_of(bus, arrival)).words == "Once upon a time."
