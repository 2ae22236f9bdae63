"""A process's lease: renewed beside the work, and what it leaves is given back so that others may go on at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from ops.runtime.bus import Bus
from tests.cables import Cable, cable_to
from tests.workers.asked import OTHER, alive, calls_of, claimed, column, prepared, reply
from tests.workers.asked import answer as said
from workers import leases
from workers.delivery import Fenced
from workers.leases import Lease
from workers.storage.database import Database
from workers.storage.turns import Turns

OWNERS = "SELECT owner::text AS value FROM turns"


@pytest.fixture
async def lease(turns: Turns, bus: Bus) -> Lease:
    lease = Lease(turns.database, bus, "generation", 60)
    await alive(turns, lease.worker_id)
    return lease


async def leave(lease: Lease, turn_id: str, epoch: int, error: type[BaseException]) -> None:
    with pytest.raises(error):
        async with lease.holding(turn_id, epoch):
            raise error


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, TimeoutError])
async def test_a_turn_that_is_left_may_be_claimed_at_once_though_its_owner_lives(
    lease: Lease, turns: Turns, user_id: str, error: type[BaseException]
) -> None:
    held = await claimed(turns, await prepared(turns, user_id), owner=lease.worker_id)
    assert await turns.claim(held.turn_id, 0, OTHER) is None
    await leave(lease, held.turn_id, held.epoch, error)
    taken = await turns.claim(held.turn_id, 0, OTHER)
    assert taken is not None
    assert (taken.epoch, taken.taken_over) == (2, True)


async def test_calls_that_are_left_may_be_claimed_at_once(lease: Lease, turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    calls = calls_of(held.turn_id, "clock")
    assert await turns.call_tools(held, reply(), said(held.turn_id, ""), calls)
    calling = await turns.claim_tools(held.turn_id, 0, lease.worker_id)
    assert calling is not None
    assert await turns.claim_tools(held.turn_id, 0, OTHER) is None
    await leave(lease, held.turn_id, calling.epoch, LookupError)
    assert await turns.claim_tools(held.turn_id, 0, OTHER) is not None


async def test_what_another_has_taken_meanwhile_stays_its_own(lease: Lease, turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id), owner=lease.worker_id)
    await lease.end()
    await claimed(turns, held.turn_id, owner=OTHER)
    for error in (Fenced, LookupError):
        await leave(lease, held.turn_id, held.epoch, error)
    assert await column(turns.database, OWNERS) == [OTHER]


async def test_a_turn_that_is_left_does_not_count_as_standing_still(lease: Lease, turns: Turns, user_id: str) -> None:
    """Its message comes back in a moment: the sweeper must not send another."""
    held = await claimed(turns, await prepared(turns, user_id), owner=lease.worker_id)
    await turns.database.run("UPDATE turns SET touched_at = touched_at - interval '1 hour'", {})
    await leave(lease, held.turn_id, held.epoch, LookupError)
    age = "SELECT extract(epoch FROM clock_timestamp() - touched_at) < 60 AS value FROM turns"
    assert await column(turns.database, age) == [True]


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection."""
    narrow = await Database.open(database_url, size=1, name="narrow")
    yield narrow
    await narrow.close()


async def test_what_cannot_be_given_back_now_is_given_back_with_a_later_renewal(
    narrow: Database, bus: Bus, turns: Turns, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "GIVE_BACK_SECONDS", 0.05)
    lease = Lease(narrow, bus, "generation", 0.3)
    held = await claimed(turns, await prepared(turns, user_id), owner=lease.worker_id)
    async with narrow.held():
        await leave(lease, held.turn_id, held.epoch, LookupError)
        for giving in lease._tasks:  # the process that gives up trying
            giving.cancel()
        assert await column(turns.database, OWNERS) == [lease.worker_id]
    running = asyncio.create_task(lease.run())
    async with asyncio.timeout(10):
        while await column(turns.database, OWNERS) != [None]:
            pass
    running.cancel()


async def test_it_is_renewed_while_the_work_has_every_connection(narrow: Database, bus: Bus, turns: Turns) -> None:
    lease = Lease(narrow, bus, "generation", 0.3)
    await lease.begin()
    ends = "SELECT extract(epoch FROM expires_at)::float8 AS value FROM leases"
    seen: set[float] = set()
    async with narrow.held():
        running = asyncio.create_task(lease.run())
        async with asyncio.timeout(10):
            while len(seen) < 3:
                seen.update(await column(turns.database, ends))
    running.cancel()
    await lease.end()
    assert await column(turns.database, ends) == []


async def test_a_renewal_that_fails_is_told_and_tried_again(
    narrow: Database, bus: Bus, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SOON", 0.01)
    await turns.database.run("ALTER TABLE leases RENAME TO away", {})
    with capture_logs() as logs:
        running = asyncio.create_task(Lease(narrow, bus, "generation", 60).run())
        async with asyncio.timeout(10):
            while len(logs) < 2:
                await turns.database.ping()
    assert logs[0] == {"event": "lease_not_renewed", "error": "UndefinedTable", "log_level": "warning"}
    await turns.database.run("ALTER TABLE away RENAME TO leases", {})
    async with asyncio.timeout(10):
        while not await column(turns.database, "SELECT 1 AS value FROM leases"):
            pass
    running.cancel()


@pytest.fixture
async def cable(nats_url: str) -> AsyncIterator[Cable]:
    """A way to NATS that may be cut."""
    async with cable_to(nats_url) as cable:
        yield cable


@pytest.fixture
async def far(cable: Cable) -> AsyncIterator[Bus]:
    """The bus at the other end of it."""
    bus = await Bus.connect(cable.url, "far")
    yield bus
    cable.join()
    await bus.close()


SLOTS = "SELECT slots AS value FROM leases"


async def renew_until_it_offers(lease: Lease, slots: int, database: Database) -> None:
    async with asyncio.timeout(10):
        while await column(database, SLOTS) != [slots]:
            await lease.renew()


async def test_who_does_not_hear_the_bus_offers_nothing_until_it_has_heard_it_for_a_lease(
    database: Database, far: Bus, cable: Cable
) -> None:
    lease, clock = Lease(database, far, "generation", 0.4), asyncio.get_running_loop().time
    lease.slots = 4
    await renew_until_it_offers(lease, 4, database)
    cable.cut()
    with capture_logs() as logs:
        for _ in range(2):
            silent = clock()
            assert not await lease.renew()
            assert await column(database, SLOTS) == [0]
    assert [line["event"] for line in logs] == ["bus_silent"]
    cable.join()
    await renew_until_it_offers(lease, 4, database)
    assert clock() - silent > lease.seconds


async def test_a_silent_bus_is_asked_again_soon(
    database: Database, far: Bus, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SOON", 0.01)
    monkeypatch.setattr(leases, "ANSWERS", 1000)
    ends = "SELECT extract(epoch FROM expires_at)::float8 AS value FROM leases"
    seen: set[float] = set()
    cable.cut()
    running = asyncio.create_task(Lease(database, far, "generation", 60).run())
    async with asyncio.timeout(10):
        while len(seen) < 3:
            seen.update(await column(database, ends))
    running.cancel()
