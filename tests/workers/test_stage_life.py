"""How any stage lives: its lease, its readiness, what runs beside its events, and its end in good order."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.streams import GENERATION
from schemas.turns import TurnPrepared
from tests.outages import cut_off, store_lost
from tests.workers.asked import column, prepared
from tests.workers.jobs import post
from tests.workers.stages import Running, Seen, Works, is_empty, nothing, until
from workers.storage.database import Database
from workers.storage.turns import Turns


async def leases(database: Database) -> list[str]:
    return await column(database, "SELECT worker_id AS value FROM leases WHERE expires_at > now()")


async def test_a_stage_says_that_it_is_alive_until_it_leaves(works: Works, database: Database) -> None:
    running = await works(nothing)
    await until(lambda: has_lease(database))
    assert await leases(database) == [running.stage.worker_id]
    await running.stop()
    assert await leases(database) == []


async def has_lease(database: Database) -> bool:
    return bool(await leases(database))


async def test_a_lease_is_renewed_before_it_ends(works: Works, database: Database) -> None:
    await works(nothing, lease=0.3)
    await until(lambda: has_lease(database))
    ends = "SELECT extract(epoch FROM expires_at)::float8 AS value FROM leases"
    seen = set(await column(database, ends))

    async def renewed_thrice() -> bool:
        seen.update(await column(database, ends))
        assert await has_lease(database)
        return len(seen) > 3

    await until(renewed_thrice)


async def test_a_lease_is_renewed_first_of_all_when_the_bus_is_back(works: Works, database: Database) -> None:
    running, seen = await works(nothing, lease=60), list[bool]()
    await until(lambda: is_ready(running))
    await until(lambda: has_lease(database))
    await database.run("UPDATE leases SET expires_at = now()", {})

    async def look() -> None:
        seen.append(await has_lease(database))

    running.stage.bus.on_reconnect.insert(1, look)
    await cut_off(running.stage.bus)
    assert seen == [True]


async def test_a_stage_that_stops_ends_what_it_has_in_hand(works: Works, bus: Bus) -> None:
    seen = Seen(holding=True)
    running = await works(seen.work)
    await post(bus, "a")
    await seen.next()
    running.ask_to_stop()
    seen.go_on.set()
    await running.stop()
    assert await is_empty(bus)


async def test_a_stage_that_stops_hands_over_what_does_not_end(works: Works, bus: Bus) -> None:
    stuck, other = Seen(holding=True), Seen()
    running = await works(stuck.work, drain=0.05)
    await post(bus, "a")
    await stuck.next()
    await running.stop()
    began = asyncio.get_running_loop().time()
    await works(other.work)
    assert await other.next() == "a"
    assert asyncio.get_running_loop().time() - began < 2


async def test_a_turn_handed_over_is_another_s_at_once(works: Works, bus: Bus, turns: Turns, user_id: str) -> None:
    """Though the lease of the process that stops would live for long."""
    turn_id, claims = await prepared(turns, user_id), asyncio.Queue[tuple[int, str]]()

    async def start() -> Running:
        async def work(event: TurnPrepared) -> None:
            held = await turns.claim(event.turn_id, event.round, running.stage.worker_id)
            assert held is not None
            async with running.stage.holding(held.turn_id, held.epoch):
                claims.put_nowait((held.epoch, running.stage.worker_id))
                await asyncio.Event().wait()

        running = await works(work, spec=GENERATION, kind=TurnPrepared, drain=0.05, lease=60)
        return running

    async with asyncio.timeout(10):
        first = await start()
        await bus.store(
            subjects.turn_event(subjects.TURN_PREPARED, 0), codec.encode(TurnPrepared(turn_id=turn_id)), msg_id=None
        )
        assert await claims.get() == (1, first.stage.worker_id)
        second = await start()
        first.ask_to_stop()
        assert await claims.get() == (2, second.stage.worker_id)


async def test_a_server_that_lost_its_store_gets_it_again_from_a_stage_that_reconnects(works: Works, bus: Bus) -> None:
    seen = Seen()
    running = await works(seen.work)
    await until(lambda: is_ready(running))
    with capture_logs() as logs:
        async with store_lost(bus):
            await cut_off(running.stage.bus)
            await post(bus, "a")
            assert await seen.next() == "a"
    assert "streams_restored" in [line["event"] for line in logs]


async def test_a_stage_is_ready_from_its_start_to_its_end(works: Works) -> None:
    running = await works(nothing)
    await until(lambda: is_ready(running))
    await running.stop()
    assert not running.stage.health.ready


async def is_ready(running: Running) -> bool:
    await asyncio.sleep(0)
    return running.stage.health.ready


async def test_what_runs_beside_the_events_is_begun_again_when_it_breaks(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()

    async def breaks() -> None:
        begun.put_nowait(None)
        raise LookupError("words")

    with capture_logs() as logs:
        running = await works(nothing)
        running.stage.also(breaks)
        async with asyncio.timeout(10):
            for _ in range(2):
                await begun.get()
    broken = [line for line in logs if line["event"] == "background_task_failed"]
    assert broken
    assert "words" not in str(broken)
