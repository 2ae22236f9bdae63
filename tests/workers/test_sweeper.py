"""Whatever happened, a turn that stands still is driven again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from structlog.testing import capture_logs

from ops.runtime.bus import Bus, BusUnavailable
from ops.runtime.config import Config
from schemas import codec, subjects
from schemas.ids import new_id
from schemas.streams import TURNS
from schemas.turns import TurnCompleted, TurnPrepared, TurnReleased, TurnState, TurnToolsCalled
from tests.outages import store_lost
from tests.workers.asked import OWNER, alive, claimed, column, finish, in_session, let_age, prepared
from tests.workers.sent import events
from tests.workers.storage.rows import add_session, add_turn
from workers.endings import Endings
from workers.storage.arrivals import Arrivals
from workers.storage.turns import Turns
from workers.storage.upkeep import Upkeep
from workers.sweeper import Sweeper

LONG = 1000.0


@pytest.fixture
def sweeper(turns: Turns, bus: Bus, config: Config) -> Sweeper:
    return Sweeper(Upkeep(turns.database), Endings(turns, Arrivals(turns.database), bus), bus, config.storage)


async def standing(turns: Turns, user_id: str, state: TurnState, round: int = 0) -> str:
    """A turn that has stood in this state for long."""
    session_id = await add_session(turns.database, user_id)
    turn_id = await add_turn(turns.database, user_id, session_id, state=state.value, round=round)
    await let_age(turns.database, turn_id, LONG)
    return turn_id


async def test_a_prepared_turn_is_handed_to_generation_again(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await standing(turns, user_id, TurnState.PREPARED, round=2)
    assert await sweeper.sweep() == 1
    driven = await events(bus, subjects.TURN_PREPARED, TurnPrepared)
    assert driven == [TurnPrepared(turn_id=turn_id, round=2)]


async def test_a_reply_whose_owner_died_is_handed_to_generation_again(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    await let_age(turns.database, turn_id, LONG)
    assert await sweeper.sweep() == 0
    await Upkeep(turns.database).give_up_lease(OWNER)
    assert await sweeper.sweep() == 1
    assert await events(bus, subjects.TURN_PREPARED, TurnPrepared) == [TurnPrepared(turn_id=turn_id)]


async def test_a_released_turn_is_announced_again(sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus) -> None:
    turn_id = await standing(turns, user_id, TurnState.ACCEPTED)
    await sweeper.sweep()
    assert await events(bus, subjects.TURN_REQUESTED, TurnReleased) == [TurnReleased(turn_id=turn_id)]


async def test_a_round_of_calls_is_handed_to_the_tools_again(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await standing(turns, user_id, TurnState.CALLING_TOOLS, round=1)
    await sweeper.sweep()
    driven = await events(bus, subjects.TURN_TOOLS_CALLED, TurnToolsCalled)
    assert driven == [TurnToolsCalled(turn_id=turn_id, round=1)]


async def test_a_stop_that_its_owner_did_not_hear_is_told_again(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await prepared(turns, user_id)
    await alive(turns)
    await claimed(turns, turn_id)
    heard = asyncio.Event()
    listener = await bus.listen(subjects.cancel(turn_id), lambda *_: heard.set())
    await turns.stop(user_id, [turn_id])
    await let_age(turns.database, turn_id, LONG)
    stopped_before = "UPDATE turns SET stopped_at = stopped_at - interval '10 seconds' WHERE id = %(id)s"
    await turns.database.run(stopped_before, {"id": turn_id})
    assert await sweeper.sweep() == 1
    async with asyncio.timeout(5):
        await heard.wait()
    await listener.close()


async def test_what_could_not_be_driven_is_driven_at_the_next_sweep(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_ids = {await standing(turns, user_id, TurnState.PREPARED) for _ in range(3)}
    jetstream = bus.client.jetstream(timeout=5)
    config = (await jetstream.stream_info(TURNS.name)).config
    size, config.max_bytes = config.max_bytes, 1
    await jetstream.update_stream(config)
    try:
        with pytest.raises(BusUnavailable):
            await sweeper.sweep()
    finally:
        config.max_bytes = size
        await jetstream.update_stream(config)
    assert await sweeper.sweep() == 3
    assert {event.turn_id for event in await events(bus, subjects.TURN_PREPARED, TurnPrepared)} == turn_ids


async def test_what_was_refused_long_ago_is_forgotten(sweeper: Sweeper, turns: Turns) -> None:
    refusals = "INSERT INTO refusals (question, refused_at) VALUES (%(id)s, now() - make_interval(mins => %(ago)s))"
    for ago in (61, 1):
        await turns.database.run(refusals, {"id": new_id(), "ago": ago})
    await sweeper.sweep()
    assert await column(turns.database, "SELECT count(*) AS value FROM refusals") == [1]


async def test_a_session_whose_queue_stands_still_is_moved(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    session_id = await add_session(turns.database, user_id)
    turn_id = await in_session(turns, user_id, session_id, state=TurnState.QUEUED, bundle=None)
    await let_age(turns.database, turn_id, LONG)
    assert await sweeper.sweep() == 1
    assert await events(bus, subjects.TURN_REQUESTED, TurnReleased) == [TurnReleased(turn_id=turn_id)]


async def test_an_ended_turn_that_memory_never_heard_of_is_told(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await prepared(turns, user_id)
    await finish(turns, await claimed(turns, turn_id))
    await turns.database.run("UPDATE turns SET finished_at = finished_at - interval '4 minutes'", {})
    assert await sweeper.sweep() == 1
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == [TurnCompleted(turn_id=turn_id)]
    await bus.client.jetstream().purge_stream(TURNS.name)
    assert await sweeper.sweep() == 0, "ended turns are looked at once in a while"


async def test_what_waits_in_a_backlog_is_not_sent_again(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    event = codec.encode(TurnPrepared(turn_id=await standing(turns, user_id, TurnState.PREPARED)))
    await turns.database.run("UPDATE turns SET touched_at = clock_timestamp()", {})
    await bus.store(subjects.turn_event(subjects.TURN_PREPARED, 0), event, msg_id=None)
    impatient = msgspec.structs.replace(sweeper._settings, sweep_after=0.2)
    swift = Sweeper(sweeper._upkeep, sweeper._endings, bus, impatient)
    await asyncio.sleep(0.3)  # for so long it has waited when it is looked at
    assert await swift.sweep() == 0
    await bus.client.jetstream().purge_stream(TURNS.name)
    assert await swift.sweep() == 1


async def test_streams_that_are_gone_are_made_again(sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus) -> None:
    turn_id = await standing(turns, user_id, TurnState.PREPARED)
    with capture_logs() as logs:
        async with store_lost(bus):
            assert await sweeper.sweep() == 1
    assert await events(bus, subjects.TURN_PREPARED, TurnPrepared) == [TurnPrepared(turn_id=turn_id)]
    assert {"streams_restored", "swept"} == {line["event"] for line in logs}


async def test_what_moves_is_let_be(sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus) -> None:
    await prepared(turns, user_id)
    await standing(turns, user_id, TurnState.AWAITING_APPROVAL)
    await standing(turns, user_id, TurnState.COMPLETED)
    assert await sweeper.sweep() == 0
    assert await events(bus, subjects.TURN_PREPARED, TurnPrepared) == []


async def test_a_message_that_the_stream_remembers_is_driven_again_all_the_same(
    sweeper: Sweeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    turn_id = await standing(turns, user_id, TurnState.PREPARED)
    event, subject = TurnPrepared(turn_id=turn_id), subjects.turn_event(subjects.TURN_PREPARED, 0)
    await bus.store(subject, codec.encode(event), msg_id=f"{turn_id}.prepared.0")
    for _ in range(2):
        assert await sweeper.sweep() == 1
        await let_age(turns.database, turn_id, LONG)
    assert await events(bus, subjects.TURN_PREPARED, TurnPrepared) == [event] * 3


async def test_a_turn_is_driven_once_in_a_while_and_not_at_each_sweep(
    sweeper: Sweeper, turns: Turns, user_id: str
) -> None:
    await standing(turns, user_id, TurnState.PREPARED)
    assert [await sweeper.sweep() for _ in range(3)] == [1, 0, 0]


SweeperEvery = Callable[[float], Sweeper]


@pytest.fixture
def sweeper_every(turns: Turns, bus: Bus, config: Config) -> SweeperEvery:
    """Sweepers of processes, at this interval."""

    def made(seconds: float) -> Sweeper:
        often = msgspec.structs.replace(config.storage, sweep_interval=seconds)
        return Sweeper(Upkeep(turns.database), Endings(turns, Arrivals(turns.database), bus), bus, often)

    return made


LOCKS = """SELECT 1 AS value FROM pg_locks JOIN pg_database ON pg_database.oid = database
WHERE locktype = 'advisory' AND datname = current_database()"""


async def test_one_process_sweeps_and_the_others_ask_nothing_until_it_is_gone(
    sweeper_every: SweeperEvery, turns: Turns, bus: Bus
) -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()
    await bus.listen("$JS.API.>", lambda subject, _: asked.put_nowait(subject))
    first = asyncio.create_task(sweeper_every(60).run())
    async with asyncio.timeout(10):
        while not await column(turns.database, LOCKS):
            pass
    other = asyncio.create_task(sweeper_every(0.01).run())
    await asyncio.sleep(0.3)  # in which it would have swept many times
    assert asked.empty()
    first.cancel()
    async with asyncio.timeout(10):
        await asked.get()
    other.cancel()


async def test_many_sweepers_at_once_drive_a_turn_once(turns: Turns, user_id: str, bus: Bus, sweeper: Sweeper) -> None:
    for _ in range(5):
        await standing(turns, user_id, TurnState.PREPARED)
    assert sum(await asyncio.gather(*(sweeper.sweep() for _ in range(3)))) == 5
    assert len(await events(bus, subjects.TURN_PREPARED, TurnPrepared)) == 5


async def test_it_sweeps_again_and_again(sweeper_every: SweeperEvery, turns: Turns, user_id: str, bus: Bus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    subject = subjects.turn_event(subjects.TURN_PREPARED, 0)
    await bus.listen(subject, lambda _, data: heard.put_nowait(data))
    running = asyncio.create_task(sweeper_every(0.01).run())
    for _ in range(2):
        turn_id = await standing(turns, user_id, TurnState.PREPARED)
        async with asyncio.timeout(5):
            assert codec.decode(await heard.get(), TurnPrepared).turn_id == turn_id
    running.cancel()
