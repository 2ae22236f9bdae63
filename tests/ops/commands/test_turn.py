"""`python -m ops turn`: one turn's life, whoever has it in hand, and none of its words."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.ids import new_id
from schemas.openai import Usage
from schemas.replies import Delta, Fence, Finished, Frame, Progress, Start
from schemas.turns import TurnPrepared
from tests.ops.commands.conftest import Ops
from tests.workers.storage.rows import add_message, add_session, add_turn, add_user
from workers.storage.database import Database
from workers.storage.upkeep import Upkeep

SECRET = "xylophone"


async def a_turn(database: Database, **columns: Any) -> str:
    user_id = await add_user(database)
    session_id = await add_session(database, user_id)
    turn_id = await add_turn(database, user_id, session_id, **columns)
    await add_message(database, session_id, SECRET, turn_id=turn_id)
    return turn_id


async def a_call(database: Database, turn_id: str) -> None:
    await database.run(
        "INSERT INTO tool_calls (id, turn_id, round, position, call_id, name, arguments, status, result, started_at, "
        "finished_at) VALUES (gen_random_uuid(), %(turn)s, 0, 0, 'c', 'clock', %(words)s, 'done', %(words)s, now(), "
        "now() + interval '250 ms')",
        {"turn": turn_id, "words": SECRET},
    )


async def frames(bus: Bus, turn_id: str, *said: Frame) -> None:
    for frame in said:
        await bus.store(subjects.reply(0, turn_id), codec.encode(frame), msg_id=None)


async def test_a_whole_life_is_on_one_screen(ops: Ops, database: Database, bus: Bus) -> None:
    turn_id = await a_turn(database, attempts=2, epoch=3, round=1, finish_reasons=["stop"], shown_index=2)
    await a_call(database, turn_id)
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    await frames(
        bus, turn_id,
        Delta(1, 1, SECRET, begins=True),
        Progress(1, "clock", "c", "running"),
        Fence(2),
        Start(2, 1, 2),
        Delta(2, 2, SECRET),
        Finished(2, 2, ["stop"], usage, 18, 0),
    )  # fmt: skip
    said = await ops("turn", turn_id)
    assert (said.status, said.err) == (0, "")
    for words in (
        f"{turn_id}  completed",
        "attempts     2  epoch 3  round 1",
        "hands        ended",
        "finish stop",
        "last event 2: 2 delta, 1 progress, 1 fence, 1 start, 1 finished",
        "messages     1 user",
        "dead letters none",
        "first words of epoch 1, event 1",
        "tool clock: running",
        "fenced off: epoch 2 takes over",
        "attempt 2 goes on behind event 1, epoch 2",
        "end told: completed",
        "0      clock  done    250 ms",
    ):
        assert words in said.out, words
    assert SECRET not in said.out
    assert len(said.out.splitlines()) < 60


async def test_the_same_can_be_had_by_programs(ops: Ops, database: Database, bus: Bus) -> None:
    turn_id = await a_turn(database)
    await frames(bus, turn_id, Delta(1, 1, SECRET, begins=True))
    said = await ops("turn", turn_id, "--json")
    page = msgspec.json.decode(said.out)
    assert (page["life"]["id"], page["life"]["state"]) == (turn_id, "completed")
    assert page["frames"]["kinds"] == {"delta": 1}
    assert SECRET not in said.out


async def test_a_turn_in_living_hands_says_whose(ops: Ops, database: Database, bus: Bus) -> None:
    worker_id = new_id()
    await Upkeep(database).renew_lease(worker_id, "generation", 30)
    turn_id = await a_turn(database, state="generating", owner=worker_id)
    assert f"generation {worker_id}, its lease lives for" in (await ops("turn", turn_id)).out


async def test_a_turn_whose_worker_fell_silent_says_so(ops: Ops, database: Database, bus: Bus) -> None:
    worker_id = new_id()
    await Upkeep(database).renew_lease(worker_id, "generation", -5)
    turn_id = await a_turn(database, state="generating", owner=worker_id)
    said = (await ops("turn", turn_id)).out
    assert re.search(rf"generation {worker_id}, silent for \d+\.\d s: free for another", said)


async def test_a_turn_that_waits_for_a_worker_shows_its_event(ops: Ops, database: Database, bus: Bus) -> None:
    turn_id = await a_turn(database, state="prepared")
    event = codec.encode(TurnPrepared(turn_id=turn_id))
    await bus.store(subjects.turn_event(subjects.TURN_PREPARED, 0), event, msg_id=None)
    said = (await ops("turn", turn_id)).out
    assert "its event is stored and waits for a worker" in said
    assert "EVENT WAITS FOR" in said


async def test_a_turn_that_nobody_would_drive_says_so(ops: Ops, database: Database, bus: Bus) -> None:
    turn_id = await a_turn(database, state="prepared")
    assert "no event of it is stored: the sweeper drives it again" in (await ops("turn", turn_id)).out


async def test_a_turn_in_line_says_behind_whom(ops: Ops, database: Database, bus: Bus) -> None:
    user_id = await add_user(database)
    session_id = await add_session(database, user_id)
    running = await add_turn(database, user_id, session_id, state="generating")
    await add_turn(database, user_id, session_id, state="queued")
    turn_id = await add_turn(database, user_id, session_id, state="queued")
    said = (await ops("turn", turn_id)).out
    assert f"it waits: 1 of its session before it, behind turn {running}, which runs" in said


async def test_its_fault_and_its_dead_letter_are_shown(ops: Ops, database: Database, bus: Bus) -> None:
    turn_id = await a_turn(database, state="failed", fault={"code": "ENGINE_FAILED", "message": "It broke."})
    event = codec.encode(TurnPrepared(turn_id=turn_id))
    letter = await bus.store(subjects.dead("generation"), event, msg_id=None)
    said = (await ops("turn", turn_id)).out
    assert "fault        ENGINE_FAILED: It broke." in said
    assert f"dead letters {letter.seq}" in said


@pytest.mark.parametrize("turn_id", [new_id(), "nonsense"], ids=["unknown", "nonsense"])
async def test_a_turn_that_is_not_there_is_an_exit_code_of_its_own(
    ops: Ops, database: Database, bus: Bus, turn_id: str
) -> None:
    said = await ops("turn", turn_id)
    assert (said.status, said.out) == (3, "")
    assert turn_id in said.err


async def test_without_a_bus_it_says_so(ops: Ops, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    said = await ops("turn", new_id())
    assert (said.status, said.err) == (1, "turn: NATS cannot be reached (NoServersError)\n")
