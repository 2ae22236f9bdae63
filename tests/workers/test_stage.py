"""How any stage runs: the door its events come through, the lease, the end in good order, and poison."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas import subjects
from schemas.faults import EngineFailed
from schemas.replies import Failed, Fence
from schemas.streams import MEMORY_WRITEBACK
from schemas.turns import TurnCompleted, TurnReleased, TurnState
from tests.workers.asked import column, in_session, prepared
from tests.workers.jobs import STAGE, SUBJECT, post, standing
from tests.workers.sent import dead_letters, events, frames
from tests.workers.storage.rows import add_session
from workers.delivery import back_off
from workers.stage import Stage
from workers.storage.database import Database
from workers.storage.turns import Turns

Works = Callable[..., Awaitable["Running"]]
Work = Callable[[TurnCompleted], Awaitable[None]]


class Running:
    """A stage at work. `stop` asks it to stop and waits until it has left."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._stopping = asyncio.Event()
        self._serving = asyncio.create_task(stage.serve(self._stopping))

    def ask_to_stop(self) -> None:
        self._stopping.set()

    async def stop(self) -> None:
        self.ask_to_stop()
        async with asyncio.timeout(20):
            await self._serving


@pytest.fixture
async def works(config: Config, nats_url: str, bus: Bus, database_url: str) -> AsyncIterator[Works]:
    """Stages of their own connections, as processes have them."""
    running: list[Running] = []

    async def start(work: Work, *, slots: int = 4, drain: float = 5, **storage: Any) -> Running:
        own = msgspec.structs.replace(
            config,
            app=msgspec.structs.replace(config.app, drain_seconds=drain),
            storage=msgspec.structs.replace(config.storage, **storage),
        )
        database = await Database.open(database_url, size=4, name="stage")
        stage = Stage(STAGE, own, await Bus.connect(nats_url, "stage"), database)
        stage.on(MEMORY_WRITEBACK, TurnCompleted, work, slots=slots)
        running.append(Running(stage))
        return running[-1]

    yield start
    for each in running:
        await each.stop()


async def nothing(event: TurnCompleted) -> None:
    """Work that is done at once."""


class Seen:
    """Work that says what it sees, and waits where it is told to."""

    def __init__(self, *, holding: bool = False) -> None:
        self.events: asyncio.Queue[TurnCompleted] = asyncio.Queue()
        self.go_on = asyncio.Event()
        if not holding:
            self.go_on.set()

    async def work(self, event: TurnCompleted) -> None:
        self.events.put_nowait(event)
        await self.go_on.wait()

    async def next(self) -> str:
        async with asyncio.timeout(10):
            return (await self.events.get()).turn_id


async def until(question: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(10):
        while not await question():
            pass


async def test_an_event_is_worked_on_and_gone(works: Works, bus: Bus) -> None:
    seen = Seen()
    await works(seen.work)
    await post(bus, "a", "b")
    assert {await seen.next(), await seen.next()} == {"a", "b"}
    await until(lambda: is_empty(bus))


async def is_empty(bus: Bus) -> bool:
    return await standing(bus) == (0, 0)


async def test_what_is_logged_while_an_event_is_worked_on_names_its_turn(works: Works, bus: Bus) -> None:
    bound: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def work(event: TurnCompleted) -> None:
        bound.put_nowait(dict(get_contextvars()))

    await works(work)
    await post(bus, "a")
    async with asyncio.timeout(10):
        assert (await bound.get())["turn_id"] == "a"
    assert "turn_id" not in get_contextvars()


async def test_a_message_nobody_can_read_is_set_aside_and_the_next_is_worked_on(works: Works, bus: Bus) -> None:
    seen = Seen()
    await works(seen.work)
    with capture_logs() as logs:
        await bus.store(SUBJECT, b"\xc1 not ours", msg_id=None)
        await post(bus, "a")
        assert await seen.next() == "a"
        await until(lambda: is_empty(bus))
    assert await dead_letters(bus, STAGE) == [b"\xc1 not ours"]
    assert {"message_unreadable", "dead_letter"} <= {line["event"] for line in logs}


async def test_a_turn_that_comes_twice_is_in_one_hand_at_a_time(works: Works, bus: Bus) -> None:
    seen = Seen(holding=True)
    await works(seen.work, lease=0.2)
    await post(bus, "a", "a", "b")
    assert {await seen.next(), await seen.next()} == {"a", "b"}
    assert seen.events.empty()
    seen.go_on.set()
    assert await seen.next() == "a"


def failing(error: Exception, tries: asyncio.Queue[float]) -> Work:
    async def work(event: TurnCompleted) -> None:
        tries.put_nowait(asyncio.get_running_loop().time())
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code"), [(LookupError("a person's words"), "ENGINE_INTERNAL"), (EngineFailed(), "ENGINE_FAILED")]
)
async def test_poison_is_set_aside_its_turn_fails_and_its_session_goes_on(
    works: Works, bus: Bus, turns: Turns, user_id: str, error: Exception, code: str
) -> None:
    session_id = await add_session(turns.database, user_id)
    poisoned = await in_session(turns, user_id, session_id)
    waiting = await in_session(turns, user_id, session_id, state=TurnState.QUEUED, bundle=None)
    tries: asyncio.Queue[float] = asyncio.Queue()
    with capture_logs():
        await works(failing(error, tries), poison_tries=3)
        await post(bus, poisoned)
        await until(lambda: is_empty(bus))
    times = [tries.get_nowait() for _ in range(tries.qsize())]
    assert len(times) == 3
    assert times[2] - times[0] >= back_off(1) + back_off(2)
    assert len(await dead_letters(bus, STAGE)) == 1
    end = await turns.end_of(poisoned)
    assert end is not None
    assert end.fault is not None
    assert (end.state, end.fault["code"]) == (TurnState.FAILED, code)
    assert "person" not in str(end.fault)
    kinds = [type(frame) for frame in await frames(bus, poisoned)]
    assert kinds == [Fence, Failed]
    assert await events(bus, subjects.TURN_REQUESTED, TurnReleased) == [TurnReleased(turn_id=waiting)]


async def test_what_is_away_for_long_never_poisons_a_turn(works: Works, bus: Bus, turns: Turns, user_id: str) -> None:
    turn_id = await prepared(turns, user_id)
    tries: asyncio.Queue[float] = asyncio.Queue()
    with capture_logs():
        running = await works(failing(ConnectionResetError(), tries), poison_tries=1)
        await post(bus, turn_id)
        async with asyncio.timeout(10):
            for _ in range(3):
                await tries.get()
        await running.stop()
    assert await turns.end_of(turn_id) is None
    assert await column(turns.database, "SELECT failures AS value FROM turns") == [0]
    assert await dead_letters(bus, STAGE) == []


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
