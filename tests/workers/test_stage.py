"""How any stage works on its events: one hand a turn, the delivery policy, and poison."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.faults import EngineFailed
from schemas.ids import new_id
from schemas.replies import Failed, Fence
from schemas.streams import GENERATION
from schemas.turns import TurnCompleted, TurnPrepared, TurnReleased, TurnState
from tests.workers.asked import column, in_session, prepared
from tests.workers.jobs import STAGE, SUBJECT, post, standing
from tests.workers.sent import dead_letters, events, frames
from tests.workers.stages import Seen, Work, Works, is_empty, until
from tests.workers.storage.rows import add_session
from workers.delivery import Fenced, back_off
from workers.storage.turns import Turns


async def test_an_event_is_worked_on_and_gone(works: Works, bus: Bus) -> None:
    seen = Seen()
    await works(seen.work)
    await post(bus, "a", "b")
    assert {await seen.next(), await seen.next()} == {"a", "b"}
    await until(lambda: is_empty(bus))


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


async def test_what_another_owns_is_left_to_it(works: Works, bus: Bus) -> None:
    seen = Seen()

    async def work(event: TurnCompleted) -> None:
        await seen.work(event)
        if event.turn_id == "another's":
            raise Fenced

    await works(work, slots=1)
    await post(bus, "another's", "ours", "ours too")
    assert [await seen.next() for _ in range(3)] == ["another's", "ours", "ours too"]
    await until(lambda: has_left_one(bus))


async def has_left_one(bus: Bus) -> bool:
    waiting, in_hand = await standing(bus)
    assert in_hand > 0
    return (waiting, in_hand) == (0, 1)


async def test_a_turn_that_comes_twice_is_in_one_hand_at_a_time(works: Works, bus: Bus) -> None:
    seen = Seen(holding=True)
    await works(seen.work, lease=0.2)
    await post(bus, "a", "a", "b")
    assert {await seen.next(), await seen.next()} == {"a", "b"}
    assert seen.events.empty()
    seen.go_on.set()
    assert await seen.next() == "a"


@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["done", "to be tried again"])
async def test_what_comes_again_while_it_is_in_hand_is_settled_as_soon_as_that_is(
    works: Works, bus: Bus, error: Exception | None
) -> None:
    """It is put off for a lease, and JetStream lets the first delivery settle the message all the same."""
    seen, settled, errors = Seen(holding=True), asyncio.Queue[bytes](), [error]

    async def work(event: TurnCompleted) -> None:
        await seen.work(event)
        if errors and (error := errors.pop()):
            raise error

    await bus.listen("$JS.ACK.>", lambda _, data: settled.put_nowait(data))
    running = await works(work, lease=60)
    await post(bus, "a")
    await seen.next()
    (message,) = running.stage._loops[0]._running.values()
    await bus.publish(message.reply, b"-NAK")
    async with asyncio.timeout(10):
        while b"delay" not in await settled.get():
            pass
    seen.go_on.set()
    if error:
        assert await seen.next() == "a"
    await until(lambda: is_empty(bus))


async def test_another_event_of_a_turn_in_hand_is_worked_on_at_once(works: Works, bus: Bus) -> None:
    """The next round's, or the release of a turn whose acceptance still waits for a receipt."""
    begun: asyncio.Queue[int] = asyncio.Queue()

    async def work(event: TurnPrepared) -> None:
        begun.put_nowait(event.round)
        await asyncio.Event().wait()

    await works(work, spec=GENERATION, kind=TurnPrepared, drain=0.05, lease=60)
    for round in range(3):
        event = codec.encode(TurnPrepared(turn_id="a", round=round))
        await bus.store(subjects.turn_event(subjects.TURN_PREPARED, 0), event, msg_id=None)
    async with asyncio.timeout(10):
        assert [await begun.get() for _ in range(3)] == [0, 1, 2]


async def is_gone(bus: Bus, event: str) -> bool:
    return not await events(bus, event, object)


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
        await works(failing(error, tries), poison_tries=3, spec=GENERATION, kind=TurnPrepared)
        event = codec.encode(TurnPrepared(turn_id=poisoned))
        await bus.store(subjects.turn_event(subjects.TURN_PREPARED, 0), event, msg_id=None)
        await until(lambda: is_gone(bus, subjects.TURN_PREPARED))
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


async def test_the_poison_of_a_turn_that_was_never_accepted_is_set_aside_as_soon(works: Works, bus: Bus) -> None:
    tries: asyncio.Queue[float] = asyncio.Queue()
    with capture_logs():
        await works(failing(LookupError(), tries), poison_tries=3)
        await post(bus, new_id())
        await until(lambda: is_empty(bus))
    assert tries.qsize() == 3
    assert len(await dead_letters(bus, STAGE)) == 1


async def test_one_that_is_sent_again_and_dies_again_is_another_letter(works: Works, bus: Bus) -> None:
    tries: asyncio.Queue[float] = asyncio.Queue()
    turn_id = new_id()
    with capture_logs():
        await works(failing(LookupError(), tries), poison_tries=1)
        for _ in range(2):
            await post(bus, turn_id)
            await until(lambda: is_empty(bus))
    assert len(await dead_letters(bus, STAGE)) == 2


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
