"""A turn changes hands: its worker dies or is followed, its end is told by another, or it is nobody's any more."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.ids import new_id, part_of
from schemas.openai import FunctionSpec, Tool
from schemas.replies import Delta, Failed, Fence, Finished, Frame, ReplyFold, Start
from schemas.turns import TurnCompleted, TurnPrepared, TurnRequested, TurnState, TurnToolsCalled
from tests.workers.asked import OTHER, alive, answer, calls_of, claimed, column, reply
from tests.workers.generation.acting import Line, Script
from tests.workers.generation.conftest import REPLIES, Asks, MakeDoor, event_of, reply_of, state_of
from tests.workers.generation.rounds_made import chunk, counted
from tests.workers.sent import events, frames
from workers.delivery import CLAIM_AFTER, Fenced, Later
from workers.generation import handlers
from workers.generation.handlers import Generation
from workers.generation.takeover import Prefix, read_prefix
from workers.records.stored_reply import stored_reply
from workers.storage.turn_rows import Claimed, Partial
from workers.storage.turns import Turns
from workers.storage.turns_read import TurnsRead

CLOCK = Tool(function=FunctionSpec(name="clock"))


async def test_an_owner_that_was_followed_meanwhile_commits_and_tells_nothing(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival, go_on = await asks(), asyncio.Event()
    script.says([chunk("Once")], go_on, [chunk(" more")])
    work = asyncio.create_task(door.on_turn_prepared(event_of(arrival)))
    await script.silent.wait()
    await claimed(turns, arrival.turn_id, owner=OTHER)
    go_on.set()
    with pytest.raises(Fenced):
        await work
    assert await state_of(turns, arrival) == TurnState.GENERATING
    assert await column(turns.database, REPLIES) == []
    assert not any(isinstance(frame, Finished) for frame in await frames(bus, arrival.turn_id))


async def cut(door: Generation, script: Script, arrival: TurnRequested, *lines: Line) -> None:
    """Let the model say these lines, and its worker die."""
    script.silent.clear()
    script.says(*lines, asyncio.Event())
    work = asyncio.create_task(door.on_turn_prepared(event_of(arrival)))
    await script.silent.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_worker_that_is_stopped_leaves_the_turn_as_it_is(
    door: Generation, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await cut(door, script, arrival, [chunk("Once")])
    assert await state_of(turns, arrival) == TurnState.GENERATING
    assert await frames(bus, arrival.turn_id) == [Delta(1, 1, "Once", begins=True)]


async def test_a_reply_whose_worker_died_goes_on_from_its_last_word(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await cut(make_door(), script, arrival, [chunk("Once ")], [chunk("upon")])
    script.says([chunk(" a time.")], [counted(20, 3)])
    await make_door().on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert (read.words, read.gaps) == ("Once upon a time.", 0)
    assert isinstance(read.fold.end, Finished)
    assert script.calls[1].prefix == "Once upon"
    assert await column(turns.database, REPLIES) == ["Once upon a time."]
    assert [type(frame) for frame in await frames(bus, arrival.turn_id)] == [
        Delta,
        Delta,
        Fence,
        Start,
        Delta,
        Finished,
    ]


async def test_the_time_of_the_first_word_is_the_dead_owner_s(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await cut(make_door(), script, arrival, [chunk("Once")])
    assert len(await frames(bus, arrival.turn_id)) == 1
    shown = time.time()
    script.says([chunk(" upon")])
    await make_door().on_turn_prepared(event_of(arrival))
    (timings,) = await column(turns.database, "SELECT timings AS value FROM turns")
    assert 0 < timings["first_token_ms"] <= (shown - arrival.asked_at) * 1000 + 0.1 < timings["finished_ms"]


class Gate:
    """Lets everybody in who comes, and nobody out until it is opened."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.open = asyncio.Event()

    async def read_prefix(self, bus: Bus, claimed: Claimed) -> Prefix:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.open.wait()
        prefix = await read_prefix(bus, claimed)
        self.inside -= 1
        return prefix


async def test_replies_of_lost_owners_are_read_back_a_few_at_a_time(
    make_door: MakeDoor, script: Script, asks: Asks, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "TAKEOVERS_AT_ONCE", 2)
    gate, door = Gate(), make_door()
    monkeypatch.setattr(handlers, "read_prefix", gate.read_prefix)
    arrivals = [await asks() for _ in range(5)]
    for arrival in arrivals:
        await claimed(turns, arrival.turn_id, owner=OTHER)
        script.says([chunk("Hello.")])
    claim, taken = door.turns.claim, asyncio.Semaphore(0)

    async def told(*of: Any) -> Claimed | None:
        found = await claim(*of)
        taken.release()  # and goes on to the gate, or as far as it may, before anyone hears of it
        return found

    monkeypatch.setattr(door.turns, "claim", told)
    work = [asyncio.create_task(door.on_turn_prepared(event_of(arrival))) for arrival in arrivals]
    for _ in arrivals:
        await taken.acquire()
    assert gate.inside == 2
    gate.open.set()
    await asyncio.gather(*work)
    assert gate.most == 2
    assert await column(turns.database, REPLIES) == ["Hello."] * 5


async def test_a_reply_of_which_the_stream_has_forgotten_words_is_not_said_again(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await cut(make_door(), script, arrival, [chunk("Once upon")])
    stand = await turns.stand(arrival.turn_id)
    assert stand
    id = part_of(arrival.turn_id, "reply", 0, 0)
    await turns.keep_partial([Partial(message_id=id, turn_id=arrival.turn_id, epoch=stand.epoch, text="Once upon a")])
    await make_door().on_turn_prepared(event_of(arrival))
    assert len(script.calls) == 1
    assert await state_of(turns, arrival) == TurnState.INTERRUPTED
    stored = "SELECT content AS value FROM messages WHERE role = 'assistant' AND NOT metadata ? 'partial'"
    assert await column(turns.database, stored) == ["Once upon a"]
    replied = await TurnsRead(turns.database).replied(arrival.user_id, arrival.turn_id)
    assert replied
    fold = ReplyFold()
    shown = [event for data in stored_reply(replied).frames for event in fold.feed(codec.decoder(Frame).decode(data))]
    assert "".join(event.text for event in shown if isinstance(event, Delta)) == "Once upon a"
    assert isinstance(fold.end, Failed)


async def test_a_reply_whose_model_cannot_go_on_ends_honestly(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    await cut(make_door(), script, arrival, [chunk("Once")])
    await make_door("none").on_turn_prepared(event_of(arrival))
    read = await reply_of(bus, arrival)
    assert read.words == "Once"
    assert isinstance(read.fold.end, Failed)
    assert (read.fold.end.state, read.fold.end.fault.code) == ("interrupted", "ENGINE_FAILED")
    assert len(script.calls) == 1
    assert await state_of(turns, arrival) == TurnState.INTERRUPTED
    assert await column(turns.database, REPLIES) == ["Once"]


async def test_a_reply_that_had_not_begun_begins_anew_with_any_model(
    make_door: MakeDoor, script: Script, asks: Asks, bus: Bus
) -> None:
    arrival = await asks()
    await cut(make_door(), script, arrival)
    script.says([chunk("Hello.")])
    await make_door("none").on_turn_prepared(event_of(arrival))
    assert (await reply_of(bus, arrival)).words == "Hello."


async def test_a_turn_whose_owner_lives_is_left_for_later(door: Generation, asks: Asks, turns: Turns) -> None:
    arrival = await asks()
    await alive(turns, OTHER, 2)
    await claimed(turns, arrival.turn_id, owner=OTHER)
    with pytest.raises(Later) as later:
        await door.on_turn_prepared(event_of(arrival))
    assert 1 < later.value.delay <= 2 + CLAIM_AFTER


async def test_an_end_that_was_committed_and_not_told_is_told(
    door: Generation, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks()
    owned, said = await claimed(turns, arrival.turn_id), reply("Hello.")
    await turns.finish(owned, TurnState.COMPLETED, said, [answer(arrival.turn_id, "Hello.")], finish_reasons=["length"])
    await door.on_turn_prepared(event_of(arrival))
    told = Finished(1, 1, ["length"], said.usage, said.shown_length, said.shown_digest)
    assert await frames(bus, arrival.turn_id) == [Fence(1), told]
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == [TurnCompleted(turn_id=arrival.turn_id)]


async def test_calls_that_were_committed_and_not_handed_on_are_handed_on(
    door: Generation, asks: Asks, bus: Bus, turns: Turns
) -> None:
    arrival = await asks(bundle={"tools": (CLOCK,)})
    owned = await claimed(turns, arrival.turn_id)
    await turns.call_tools(owned, reply(), answer(arrival.turn_id, ""), calls_of(arrival.turn_id, "clock"))
    await door.on_turn_prepared(event_of(arrival))
    called = await events(bus, subjects.TURN_TOOLS_CALLED, TurnToolsCalled)
    assert called == [TurnToolsCalled(turn_id=arrival.turn_id, round=0)]


async def test_a_turn_nobody_knows_is_let_go(door: Generation, bus: Bus) -> None:
    await door.on_turn_prepared(TurnPrepared(turn_id=new_id()))
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == []


async def test_an_old_round_s_event_is_let_go(door: Generation, asks: Asks, turns: Turns, bus: Bus) -> None:
    arrival = await asks()
    await door.on_turn_prepared(event_of(arrival, round=3))
    assert await state_of(turns, arrival) == TurnState.PREPARED
    assert await frames(bus, arrival.turn_id) == []
