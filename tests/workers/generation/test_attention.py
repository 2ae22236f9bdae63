"""What ends a model's speaking from outside: a stop, another owner, a reader who left and did not come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ops.runtime.bus import Bus
from schemas import subjects
from schemas.openai import FunctionSpec, Tool
from schemas.replies import Finished, Snapshot
from schemas.turns import TurnRequested, TurnState
from tests.workers.asked import OTHER, claimed, column
from tests.workers.generation.acting import Script
from tests.workers.generation.conftest import REPLIES, Asks, MakeDoor, event_of, reply_of, state_of
from tests.workers.generation.rounds_made import call_chunk, chunk, counted
from tests.workers.sent import frames
from workers.delivery import Fenced
from workers.generation import attention, partials
from workers.generation.handlers import Generation
from workers.storage.turns import Turns

CLOCK = Tool(function=FunctionSpec(name="clock"))
STOPPED = "UPDATE turns SET stopped_at = clock_timestamp() WHERE id = %(a)s RETURNING id::text AS value"
STATES = "SELECT metadata ->> 'state' AS value FROM messages WHERE role = 'assistant'"


class Speaking:
    """A model that has said a word and will say more when it is let."""

    def __init__(self, door: Generation, script: Script, arrival: TurnRequested) -> None:
        self.go_on, self.arrival, self._script = asyncio.Event(), arrival, script
        script.says([chunk("Once")], [chunk(" upon")], self.go_on, [chunk(" a time.", finish="stop")])
        self.work = asyncio.create_task(door.on_turn_prepared(event_of(arrival)))

    async def begun(self) -> None:
        await self._script.silent.wait()

    async def ended(self) -> None:
        async with asyncio.timeout(5):
            await self.work


@pytest.fixture
async def opened(door: Generation) -> Generation:
    """The door of a process that hears stops."""
    await door.stage.stops.open()
    return door


async def test_a_stopped_reply_keeps_what_was_shown_and_ends_in_good_order(
    opened: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    speaking = Speaking(opened, script, await asks(n=2))
    await speaking.begun()
    await bus.publish(subjects.cancel(speaking.arrival.turn_id), b"")
    await speaking.ended()
    read = await reply_of(bus, speaking.arrival)
    end = read.fold.end
    assert isinstance(end, Finished)
    assert (end.finish_reasons, end.state, end.stopped) == (["stop", "stop"], "cancelled", True)
    assert read.words == "Once upon"
    assert await column(turns.database, REPLIES) == ["Once upon", ""]
    assert await column(turns.database, STATES) == ["cancelled", "cancelled"]
    assert await state_of(turns, speaking.arrival) == TurnState.CANCELLED


async def test_a_stop_before_the_first_word_leaves_no_words_and_no_bill(
    opened: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await column(turns.database, STOPPED, arrival.turn_id)
    await opened.on_turn_prepared(event_of(arrival))
    end = (await reply_of(bus, arrival)).fold.end
    assert isinstance(end, Finished)
    assert (end.state, end.usage.total_tokens, script.calls) == ("cancelled", 0, [])
    assert await column(turns.database, REPLIES) == []


async def test_a_stopped_turn_that_is_taken_over_says_nothing_more(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    speaking = Speaking(make_door(), script, await asks())
    await speaking.begun()
    speaking.work.cancel()
    await asyncio.wait([speaking.work])
    await column(turns.database, STOPPED, speaking.arrival.turn_id)
    await make_door("none").on_turn_prepared(event_of(speaking.arrival))
    read = await reply_of(bus, speaking.arrival)
    assert (read.words, len(script.calls)) == ("Once upon", 1)
    assert isinstance(read.fold.end, Finished)
    assert read.fold.end.stopped
    assert read.fold.end.usage.completion_tokens == 2
    assert await column(turns.database, REPLIES) == ["Once upon"]


async def test_a_stop_that_came_before_the_calls_lets_none_of_them_run(
    opened: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival, go_on = await asks(bundle={"tools": (CLOCK,)}), asyncio.Event()
    script.says([chunk("Wait.")], go_on, [call_chunk(0, "c1", "clock", "{}"), counted(9, 4)])
    work = asyncio.create_task(opened.on_turn_prepared(event_of(arrival)))
    await script.silent.wait()
    await column(turns.database, STOPPED, arrival.turn_id)  # and its broadcast is lost
    go_on.set()
    await work
    assert await column(turns.database, "SELECT name AS value FROM tool_calls") == []
    end = (await reply_of(bus, arrival)).fold.end
    assert isinstance(end, Finished)
    assert (end.state, end.usage.completion_tokens) == ("cancelled", 4)


async def test_an_owner_that_was_followed_soon_stops_listening_to_its_model(
    opened: Generation, script: Script, asks: Asks, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "EVERY_SECONDS", 0.01)
    speaking = Speaking(opened, script, await asks())
    await speaking.begun()
    await claimed(turns, speaking.arrival.turn_id, owner=OTHER)
    keeping = asyncio.create_task(opened.partials.run())
    with pytest.raises(Fenced):
        await speaking.ended()
    keeping.cancel()
    assert await state_of(turns, speaking.arrival) == TurnState.GENERATING


@pytest.fixture
async def watched(opened: Generation, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Generation]:
    """A process that looks for readers all the time."""
    monkeypatch.setattr(attention, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(attention, "CANCEL_GRACE", 0.005)
    watching = asyncio.create_task(opened.attention.run())
    yield opened
    watching.cancel()


async def test_a_reply_whose_reader_left_is_stopped_where_that_was_wished(
    watched: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    speaking = Speaking(watched, script, await asks(cozy={"on_disconnect": "cancel"}))
    await speaking.ended()
    end = (await reply_of(bus, speaking.arrival)).fold.end
    assert isinstance(end, Finished)
    assert end.stopped
    assert await state_of(turns, speaking.arrival) == TurnState.CANCELLED


class Reader:
    """Somebody who says that they are there, as gateways do."""

    def __init__(self, bus: Bus) -> None:
        self.bus, self.asked, self.enough = bus, 0, asyncio.Event()

    async def there(self, turn_id: str) -> None:
        async def answer(message: object) -> None:
            self.asked += 1
            await message.respond(b"")  # type: ignore[attr-defined]
            if self.asked == 5:
                self.enough.set()

        self.subscription = await self.bus.client.subscribe(subjects.listeners(turn_id), cb=answer)
        await self.bus.flush()


async def test_a_reply_with_a_reader_goes_on(watched: Generation, script: Script, asks: Asks, bus: Bus) -> None:
    arrival, reader = await asks(cozy={"on_disconnect": "cancel"}), Reader(bus)
    await reader.there(arrival.turn_id)
    speaking = Speaking(watched, script, arrival)
    await reader.enough.wait()
    speaking.go_on.set()
    await speaking.ended()
    assert (await reply_of(bus, arrival)).words == "Once upon a time."


@pytest.mark.parametrize(("wish", "asked"), [("continue", False), (None, True)])
async def test_who_is_to_go_on_alone_is_never_asked_about(
    opened: Generation, script: Script, asks: Asks, bus: Bus, wish: str | None, asked: bool
) -> None:
    arrival, reader = await asks(cozy={"on_disconnect": wish}), Reader(bus)
    await reader.there(arrival.turn_id)
    speaking = Speaking(opened, script, arrival)
    await speaking.begun()
    interval = opened.stage.config.engines.generation.listener_interval
    await opened.attention.look(asyncio.get_running_loop().time() + interval - 1)
    assert reader.asked == 0
    await opened.attention.look(asyncio.get_running_loop().time() + interval + 1)
    assert bool(reader.asked) is asked
    speaking.go_on.set()
    await speaking.ended()


class Looking:
    """A reply under way without a reader, and a process that looks for one when it is told to."""

    def __init__(self, door: Generation, script: Script, arrival: TurnRequested) -> None:
        self.grace = door.stage.config.engines.generation.listener_grace
        self.interval = door.stage.config.engines.generation.listener_interval
        self._door, self.speaking = door, Speaking(door, script, arrival)

    async def alone(self) -> None:
        """The first look that finds nobody."""
        await self.speaking.begun()
        self._since = asyncio.get_running_loop().time() + self.interval
        await self.after(0)

    async def after(self, seconds: float) -> None:
        """Look so long after the first look."""
        await self._door.attention.look(self._since + seconds)

    async def end(self, bus: Bus) -> str:
        """How the reply ends once its model may go on: a reply that was stopped before does not."""
        self.speaking.go_on.set()
        await self.speaking.ended()
        end = (await reply_of(bus, self.speaking.arrival)).fold.end
        assert isinstance(end, Finished)
        return end.state


@pytest.mark.parametrize(("late", "state"), [(-1, "completed"), (1, "cancelled")])
async def test_nobody_may_be_there_for_the_grace_and_no_longer(
    opened: Generation, script: Script, asks: Asks, bus: Bus, late: float, state: str
) -> None:
    looking = Looking(opened, script, await asks())
    await looking.alone()
    await looking.after(looking.grace + late)
    assert await looking.end(bus) == state


async def test_a_reader_that_comes_back_and_leaves_begins_a_new_grace(
    opened: Generation, script: Script, asks: Asks, bus: Bus
) -> None:
    looking, reader = Looking(opened, script, await asks()), Reader(bus)
    await looking.alone()
    await reader.there(looking.speaking.arrival.turn_id)
    await looking.after(looking.grace + 1)
    await reader.subscription.unsubscribe()
    await bus.flush()
    await looking.after(2 * looking.grace)
    await looking.after(3 * looking.grace - 1)
    assert await looking.end(bus) == "completed"


async def test_a_reader_that_misses_a_frame_gets_a_snapshot(
    watched: Generation, script: Script, asks: Asks, bus: Bus
) -> None:
    speaking = Speaking(watched, script, await asks())
    await speaking.begun()
    await bus.flush()
    turn_id = speaking.arrival.turn_id
    async with asyncio.timeout(5):
        while not any(isinstance(frame, Snapshot) for frame in await frames(bus, turn_id)):
            await bus.publish(subjects.wanted(turn_id), b"")
    speaking.go_on.set()
    await speaking.ended()
    assert (await reply_of(bus, speaking.arrival)).words == "Once upon a time."


async def test_a_process_that_stops_leaves_a_stopped_turn_to_others(
    opened: Generation, script: Script, asks: Asks, turns: Turns
) -> None:
    """Cancelled from outside is not stopped by its user, even where both come at once."""
    speaking = Speaking(opened, script, await asks())
    await speaking.begun()
    speaking.work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await speaking.work
    assert await state_of(turns, speaking.arrival) == TurnState.GENERATING
