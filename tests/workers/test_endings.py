"""What follows a turn's end: its reader is told, and the session's next turn may run."""

from __future__ import annotations

import msgspec
import pytest

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.faults import EngineTimeout
from schemas.ids import new_id, part_of
from schemas.replies import Delta, Failed, Fence
from schemas.turns import TurnCompleted, TurnReleased, TurnState
from tests.workers.asked import answer, claimed, column, in_session, prepared, reply
from tests.workers.sent import events, frames
from tests.workers.storage.rows import add_session
from workers.endings import Endings
from workers.storage.arrivals import Arrivals
from workers.storage.memory import MemoryShelf
from workers.storage.turn_rows import Partial
from workers.storage.turns import Turns

LATE = EngineTimeout().record


@pytest.fixture
def endings(turns: Turns, bus: Bus) -> Endings:
    return Endings(turns, Arrivals(turns.database), bus)


async def released(bus: Bus) -> list[str]:
    return [event.turn_id for event in await events(bus, subjects.TURN_REQUESTED, TurnReleased)]


async def test_a_failed_turn_s_reader_hears_of_it_and_no_more_of_its_owner(
    endings: Endings, turns: Turns, user_id: str, bus: Bus
) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    await endings.fail(held.turn_id, LATE)
    assert await frames(bus, held.turn_id) == [Fence(2), Failed(2, 0, LATE)]
    said = answer(held.turn_id, "x")
    assert await turns.finish(held, TurnState.COMPLETED, reply("x"), [said]) is None


async def test_a_turn_that_fails_keeps_the_words_that_were_shown(
    endings: Endings, turns: Turns, user_id: str, bus: Bus
) -> None:
    """And no word that was stored before it was shown, or said by an owner of the past."""
    held = await claimed(turns, await prepared(turns, user_id))
    subject, shown = subjects.reply(held.shard, held.turn_id), reply("Once ", "upon", " a")
    first = msgspec.structs.replace(shown.said[0], begins=True)
    for frame in (first, *shown.said[1:], Delta(1, 4, " time", choice=1), Delta(1, 6, " after a hole")):
        await bus.publish(subject, codec.encode(frame))
    partial = Partial(
        message_id=part_of(held.turn_id, "reply", 0, 0), turn_id=held.turn_id, epoch=1, text="Once upon a t"
    )
    await turns.keep_partial([partial])
    await endings.fail(held.turn_id, LATE)
    end = await turns.end_of(held.turn_id)
    assert end is not None
    assert (end.shown_index, end.shown_length) == (4, shown.shown_length + 5)
    assert (await frames(bus, held.turn_id))[-2:] == [Fence(2), Failed(2, 4, LATE)]
    stored = "SELECT jsonb_build_array(content, metadata) AS value FROM messages WHERE role = 'assistant' ORDER BY ord"
    assert await column(turns.database, stored) == [
        ["Once upon a", {"first_index": 1, "state": "failed"}],
        [" time", {"first_index": 1, "state": "failed", "choice": 1}],
    ]
    said = "SELECT reply[1] AS value FROM turns"
    assert len(codec.decode((await column(turns.database, said))[0], list[Delta])) == 4
    await endings.tell_end(held.turn_id)  # told again it is the same
    assert await turns.end_of(held.turn_id) == end
    assert await column(turns.database, "SELECT cardinality(reply) AS value FROM turns") == [1]


async def test_memory_is_told_of_every_end_and_counts_what_is_there(
    endings: Endings, turns: Turns, user_id: str, bus: Bus
) -> None:
    session_id = await add_session(turns.database, user_id)
    turn_id = await in_session(turns, user_id, session_id)
    await endings.fail(turn_id, LATE)
    assert await events(bus, subjects.TURN_COMPLETED, TurnCompleted) == [TurnCompleted(turn_id=turn_id)]
    await MemoryShelf(turns.database).note([turn_id])
    count = "SELECT message_count AS value FROM sessions WHERE id = %(a)s"
    assert await column(turns.database, count, session_id) == [1]


async def test_an_end_is_not_told_before_it_is_there(endings: Endings, turns: Turns, user_id: str, bus: Bus) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    await endings.tell_end(held.turn_id)
    assert await frames(bus, held.turn_id) == []


async def test_a_turn_that_has_ended_stays_as_it_is(endings: Endings, turns: Turns, user_id: str, bus: Bus) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    await turns.finish(held, TurnState.COMPLETED, reply("x"), [answer(held.turn_id, "x")])
    for turn_id in (held.turn_id, new_id()):
        await endings.fail(turn_id, LATE)
        assert await frames(bus, turn_id) == []
    end = await turns.end_of(held.turn_id)
    assert end is not None
    assert end.state == TurnState.COMPLETED


async def test_a_failed_turn_lets_its_session_go_on(endings: Endings, turns: Turns, user_id: str, bus: Bus) -> None:
    session_id = await add_session(turns.database, user_id)
    first = await in_session(turns, user_id, session_id)
    second = await in_session(turns, user_id, session_id, state=TurnState.QUEUED, bundle=None)
    await endings.fail(first, LATE)
    assert await released(bus) == [second]


@pytest.mark.parametrize("limit", [None, 1])
async def test_a_turn_that_was_let_go_on_by_a_process_that_died_is_put_on_its_way_by_whoever_tells_the_end_again(
    turns: Turns, user_id: str, bus: Bus, limit: int | None
) -> None:
    """A process that stops gives its message back at once, and another has it a moment later."""
    arrivals, session_id = Arrivals(turns.database, limit), await add_session(turns.database, user_id)
    first = await in_session(turns, user_id, session_id)
    second = await in_session(turns, user_id, session_id, state=TurnState.QUEUED, bundle=None)
    await turns.fail(first, LATE)
    assert [ready.turn_id for ready in await arrivals.release(session_id)] == [second]
    assert await released(bus) == []
    for _ in range(2):
        await Endings(turns, arrivals, bus).tell_end(first)
    assert await released(bus) == [second]


async def test_a_release_where_nobody_waits_says_nothing(
    endings: Endings, turns: Turns, user_id: str, bus: Bus
) -> None:
    await endings.release(await add_session(turns.database, user_id))
    assert await released(bus) == []


async def test_a_turn_is_announced_once_unless_it_stood_still(endings: Endings, bus: Bus) -> None:
    turn_id = new_id()
    for again in ("", "", ".again"):
        await endings.announce(turn_id, 0, again=again)
    assert await released(bus) == [turn_id, turn_id]
