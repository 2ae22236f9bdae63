"""A turn arrives: its gateway hears the verdict, and what is accepted is prepared for generation."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from ops.runtime import metrics
from ops.runtime.bus import Bus
from ops.runtime.config import Config
from ops.runtime.personalities import PersonalitySet
from schemas import codec, subjects
from schemas.context import ContextBundle
from schemas.faults import EngineTimeout, ModelNotFound, StorageUnavailable
from schemas.ids import new_id
from schemas.openai import AssistantMessage, Message, UserMessage
from schemas.replies import Failed
from schemas.turns import Accepted, Refused, TurnPrepared, TurnReleased, TurnRequested, TurnState, Verdict
from tests.workers.asked import asked, chat, claimed, column, finish
from tests.workers.sent import events, frames
from tests.workers.storage.rows import add_session
from workers.context_fetch.acceptance import Acceptance
from workers.context_fetch.handlers import ContextFetch
from workers.endings import Endings
from workers.engines.tools.shelf import ToolShelf
from workers.stopping import Stopping
from workers.storage.arrivals import Arrivals
from workers.storage.turns import Turns


def door_with(config: Config, bus: Bus, turns: Turns) -> ContextFetch:
    arrivals = Arrivals(turns.database, config.security.concurrent_turns)
    endings = Endings(turns, arrivals, bus)
    acceptance = Acceptance(arrivals, Stopping(turns, endings, bus), config, ToolShelf())
    return ContextFetch(acceptance, turns, endings, bus)


@pytest.fixture
def door(config: Config, bus: Bus, turns: Turns) -> ContextFetch:
    return door_with(config, bus, turns)


@pytest.fixture
async def session_id(turns: Turns, user_id: str) -> str:
    return await add_session(turns.database, user_id, personality_id="tutor")


async def verdict_on(door: ContextFetch, arrival: TurnRequested) -> Verdict | None:
    """Let the turn arrive, and hear what its gateway is told."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    listener = await door.bus.listen(arrival.verdict_subject, lambda _, data: heard.put_nowait(data))
    await door.on_turn_arrival(arrival)
    await door.bus.flush()
    await listener.close()
    assert heard.qsize() <= 1
    return codec.decoder(Verdict).decode(heard.get_nowait()) if heard.qsize() else None


async def prepared(bus: Bus) -> list[str]:
    return [event.turn_id for event in await events(bus, subjects.TURN_PREPARED, TurnPrepared)]


async def released(bus: Bus) -> list[str]:
    return [event.turn_id for event in await events(bus, subjects.TURN_REQUESTED, TurnReleased)]


def late(arrival: TurnRequested) -> TurnRequested:
    """The same turn once its time is over."""
    return msgspec.structs.replace(arrival, expires_at=time.time() - 0.1)


def counted_turns() -> float:
    return float(metrics.TURNS.labels("accepted")._value.get())


def to(session_id: str, user_id: str, words: str = "Hi") -> TurnRequested:
    return asked(user_id, chat(words, cozy={"session_id": session_id}))


async def test_an_accepted_turn_is_told_and_handed_on(door: ContextFetch, user_id: str, bus: Bus) -> None:
    arrival = asked(user_id)
    verdict = await verdict_on(door, arrival)
    assert isinstance(verdict, Accepted)
    assert (verdict.turn_id, verdict.attached) == (arrival.turn_id, False)
    assert await prepared(bus) == [arrival.turn_id]


async def test_a_refused_turn_is_told_and_leaves_nothing(
    door: ContextFetch, user_id: str, bus: Bus, turns: Turns
) -> None:
    arrival = asked(user_id, chat(model="gpt-x"))
    verdict = await verdict_on(door, arrival)
    assert isinstance(verdict, Refused)
    assert verdict.fault.code == ModelNotFound.code
    assert await Arrivals(turns.database).find(arrival.turn_id) is None
    assert await prepared(bus) == []
    assert await frames(bus, arrival.turn_id) == []


async def test_a_turn_that_comes_too_late_is_not_taken(
    door: ContextFetch, user_id: str, bus: Bus, turns: Turns
) -> None:
    arrival = late(asked(user_id))
    verdict = await verdict_on(door, arrival)
    assert isinstance(verdict, Refused)
    assert verdict.fault.code == StorageUnavailable.code
    assert await Arrivals(turns.database).find(arrival.turn_id) is None
    assert await column(turns.database, "SELECT id AS value FROM sessions") == []


async def test_a_turn_whose_worker_died_after_its_commit_goes_on_however_late_it_comes_again(
    door: ContextFetch, user_id: str, bus: Bus
) -> None:
    arrival = asked(user_id)
    await door.acceptance.accept(arrival)
    assert isinstance(await verdict_on(door, late(arrival)), Accepted)
    assert await prepared(bus) == [arrival.turn_id]


async def test_a_turn_is_counted_once(door: ContextFetch, user_id: str) -> None:
    before = counted_turns()
    arrival = asked(user_id)
    for _ in range(2):
        await verdict_on(door, arrival)
    assert counted_turns() == before + 1


async def test_a_turn_that_comes_again_is_told_again_and_handed_on_once(
    door: ContextFetch, user_id: str, bus: Bus
) -> None:
    arrival = asked(user_id)
    for attached in (False, True):
        verdict = await verdict_on(door, arrival)
        assert isinstance(verdict, Accepted)
        assert verdict.attached is attached
    assert await prepared(bus) == [arrival.turn_id]


async def test_a_turn_that_waits_is_told_so_and_not_handed_on(
    door: ContextFetch, user_id: str, bus: Bus, session_id: str
) -> None:
    first, second = to(session_id, user_id), to(session_id, user_id)
    await verdict_on(door, first)
    assert isinstance(await verdict_on(door, second), Accepted)
    assert await prepared(bus) == [first.turn_id]
    assert await released(bus) == []


async def test_a_turn_whose_time_has_come_knows_the_reply_it_waited_for(
    door: ContextFetch, user_id: str, bus: Bus, session_id: str, turns: Turns
) -> None:
    first, second = to(session_id, user_id, "one"), to(session_id, user_id, "two")
    for arrival in (first, second):
        await verdict_on(door, arrival)
    await finish(turns, await claimed(turns, first.turn_id), "re one")
    await door.endings.release(session_id)
    assert await released(bus) == [second.turn_id]
    await door.on_turn_arrival(TurnReleased(turn_id=second.turn_id))
    assert await prepared(bus) == [first.turn_id, second.turn_id]
    bundle = codec.decode((await claimed(turns, second.turn_id)).bundle, ContextBundle)
    said = [UserMessage(content="one"), AssistantMessage(content="re one"), UserMessage(content="two")]
    assert [*bundle.history, *bundle.incoming] == said
    assert bundle.personality_id == "tutor"


@pytest.mark.parametrize("limit", [None, 1])
async def test_a_turn_knows_nothing_of_what_waits_behind_it(
    config: Config, user_id: str, bus: Bus, session_id: str, turns: Turns, limit: int | None
) -> None:
    security = msgspec.structs.replace(config.security, concurrent_turns=limit)
    door = door_with(msgspec.structs.replace(config, security=security), bus, turns)
    arrivals = [to(session_id, user_id, words) for words in ("one", "two", "three")]
    for arrival in arrivals:
        await verdict_on(door, arrival)
    heard = []
    for arrival in arrivals:
        await door.on_turn_arrival(TurnReleased(turn_id=arrival.turn_id))
        held = await claimed(turns, arrival.turn_id)
        bundle = codec.decode(held.bundle, ContextBundle)
        heard.append([message.content for message in (*bundle.history, *bundle.incoming)])
        await finish(turns, held, f"re {heard[-1][-1]}")
        await door.endings.tell_end(arrival.turn_id)
    assert heard == [["one"], ["one", "re one", "two"], ["one", "re one", "two", "re two", "three"]]


async def test_a_turn_that_queued_just_as_the_one_before_it_ended_is_released_by_itself(
    door: ContextFetch, user_id: str, bus: Bus, session_id: str, turns: Turns
) -> None:
    first, second = to(session_id, user_id), to(session_id, user_id)
    await verdict_on(door, first)
    held = await claimed(turns, first.turn_id)
    verdict, state = await door.acceptance.accept(second)
    assert state is TurnState.QUEUED
    await finish(turns, held)
    await door._go_on(verdict, state)
    assert await released(bus) == [second.turn_id]


async def test_a_release_that_is_told_twice_prepares_once(
    door: ContextFetch, user_id: str, bus: Bus, session_id: str, turns: Turns
) -> None:
    first, second = to(session_id, user_id), to(session_id, user_id)
    for arrival in (first, second):
        await verdict_on(door, arrival)
    await finish(turns, await claimed(turns, first.turn_id))
    await door.endings.release(session_id)
    for _ in range(2):
        await door.on_turn_arrival(TurnReleased(turn_id=second.turn_id))
    assert await prepared(bus) == [first.turn_id, second.turn_id]


async def test_a_turn_that_failed_while_it_was_prepared_by_a_process_that_died_is_told_and_the_next_goes_on(
    door: ContextFetch, user_id: str, bus: Bus, session_id: str, turns: Turns
) -> None:
    first, second = to(session_id, user_id), to(session_id, user_id)
    for arrival in (first, second):
        await verdict_on(door, arrival)
    await turns.fail(first.turn_id, ModelNotFound().record)
    await door.on_turn_arrival(TurnReleased(turn_id=first.turn_id))
    assert isinstance((await frames(bus, first.turn_id))[-1], Failed)
    assert await released(bus) == [second.turn_id]


async def test_a_release_of_a_turn_that_has_moved_on_or_is_unknown_does_nothing(
    door: ContextFetch, user_id: str, bus: Bus, turns: Turns
) -> None:
    arrival = asked(user_id)
    await verdict_on(door, arrival)
    await claimed(turns, arrival.turn_id)
    for turn_id in (arrival.turn_id, new_id()):
        await door.on_turn_arrival(TurnReleased(turn_id=turn_id))
    assert await prepared(bus) == [arrival.turn_id]


async def test_a_turn_alone_that_waited_for_room_is_made_of_its_own_request(
    config: Config, user_id: str, bus: Bus, turns: Turns
) -> None:
    security = msgspec.structs.replace(config.security, concurrent_turns=1)
    door = door_with(msgspec.structs.replace(config, security=security), bus, turns)
    said: list[Message] = [UserMessage(content="one"), AssistantMessage(content="yes"), UserMessage(content="two")]
    first, second = asked(user_id), asked(user_id, chat(said))
    for arrival in (first, second):
        assert isinstance(await verdict_on(door, arrival), Accepted)
    assert await prepared(bus) == [first.turn_id]
    held = await claimed(turns, first.turn_id)
    await finish(turns, held)
    await door.endings.release_after(first.turn_id, held.session_id)
    assert await released(bus) == [second.turn_id]
    await door.on_turn_arrival(TurnReleased(turn_id=second.turn_id))
    bundle = codec.decode((await claimed(turns, second.turn_id)).bundle, ContextBundle)
    assert list(bundle.incoming) == said


async def test_a_waiting_turn_that_nobody_can_answer_any_more_fails_and_the_next_one_goes_on(
    config: Config, user_id: str, bus: Bus, session_id: str, turns: Turns
) -> None:
    door = door_with(config, bus, turns)
    arrivals = [to(session_id, user_id) for _ in range(3)]
    for arrival in arrivals:
        await verdict_on(door, arrival)
    await turns.fail(arrivals[0].turn_id, EngineTimeout().record)
    await door.endings.release(session_id)
    without = PersonalitySet({id: each for id, each in config.personalities.by_id.items() if id != "tutor"})
    poorer = door_with(msgspec.structs.replace(config, personalities=without), bus, turns)
    await poorer.on_turn_arrival(TurnReleased(turn_id=arrivals[1].turn_id))
    end = (await frames(bus, arrivals[1].turn_id))[-1]
    assert isinstance(end, Failed)
    assert end.fault.code == ModelNotFound.code
    assert await released(bus) == [arrivals[1].turn_id, arrivals[2].turn_id]
    states = await column(turns.database, "SELECT state AS value FROM turns ORDER BY ord")
    assert states == ["failed", "failed", "accepted"]
