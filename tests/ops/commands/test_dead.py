"""`python -m ops dead`: letters are listed without words, shown with them on request, and sent again once."""

from __future__ import annotations

import msgspec
import pytest

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.ids import new_id
from schemas.openai import ChatRequest, UserMessage
from schemas.streams import DEAD_LETTERS, TURNS
from schemas.turns import TurnCompleted, TurnPrepared, TurnRequested
from tests.ops.commands.conftest import Ops
from tests.workers.storage.rows import add_session, add_turn, add_user
from workers.storage.database import Database
from workers.storage.turns import Turns

SECRET = "xylophone"


async def bury(bus: Bus, stage: str, data: bytes) -> int:
    return (await bus.store(subjects.dead(stage), data, msg_id=None)).seq


async def a_turn(database: Database, state: str) -> str:
    user_id = await add_user(database)
    return await add_turn(database, user_id, await add_session(database, user_id), state=state, shard=0)


def requested(turn_id: str) -> bytes:
    request = ChatRequest(model="m", messages=[UserMessage(content=SECRET)])
    asked = TurnRequested(
        turn_id=turn_id, user_id=new_id(), request_id="r", request=request, fingerprint="f",
        verdict_subject="v", asked_at=0.0, expires_at=0.0,
    )  # fmt: skip
    return codec.encode(asked)


async def left(bus: Bus, stream: str) -> int:
    messages = (await bus.client.jetstream().stream_info(stream)).state.messages
    assert messages is not None
    return messages


async def test_letters_are_listed_oldest_first_and_without_words(ops: Ops, database: Database, bus: Bus) -> None:
    turn_id = new_id()
    first = await bury(bus, "context_fetch", requested(turn_id))
    second = await bury(bus, "generation", SECRET.encode())
    said = await ops("dead", "list")
    assert said.status == 0
    rows = [line.split() for line in said.out.splitlines()]
    assert (rows[1][:2], rows[1][3]) == ([str(first), "context_fetch"], turn_id)
    assert (rows[2][:2], rows[2][3]) == ([str(second), "generation"], "unreadable")
    assert SECRET not in said.out
    assert [each["number"] for each in msgspec.json.decode((await ops("dead", "list", "--json")).out)] == [
        first,
        second,
    ]


async def test_no_letters_are_told_as_such(ops: Ops, database: Database, bus: Bus) -> None:
    assert (await ops("dead", "list")).out == "There are no dead letters.\n"


async def test_one_is_shown_with_its_words_only_where_asked(ops: Ops, database: Database, bus: Bus) -> None:
    number = str(await bury(bus, "context_fetch", requested(new_id())))
    plain = await ops("dead", "show", number)
    assert (plain.status, SECRET in plain.out, "TurnRequested" in plain.out) == (0, False, True)
    assert SECRET in (await ops("dead", "show", number, "--content")).out
    told = msgspec.json.decode((await ops("dead", "show", number, "--json")).out)
    assert (told["stage"], told["turn_state"], "content" in told) == ("context_fetch", None, False)


async def test_one_is_sent_to_its_stage_again_and_is_gone(ops: Ops, database: Database, bus: Bus) -> None:
    turn_id = await a_turn(database, "prepared")
    await Turns(database).count_failure(turn_id)
    number = await bury(bus, "generation", codec.encode(TurnPrepared(turn_id=turn_id, round=2)))
    said = await ops("dead", "redrive", str(number))
    assert (said.status, said.err) == (0, "")
    message = await bus.client.jetstream().get_last_msg(TURNS.name, "turn.prepared.0")
    assert message.data is not None
    assert codec.decode(message.data, TurnPrepared) == TurnPrepared(turn_id=turn_id, round=2)
    assert await left(bus, DEAD_LETTERS.name) == 0
    assert await Turns(database).count_failure(turn_id) == 1, "it has all its tries again"
    assert (await ops("dead", "redrive", str(number))).status == 3


async def test_what_follows_a_turn_s_end_is_sent_again_although_it_has_ended(
    ops: Ops, database: Database, bus: Bus
) -> None:
    turn_id = await a_turn(database, "completed")
    number = await bury(bus, "memory_writeback", codec.encode(TurnCompleted(turn_id=turn_id)))
    assert (await ops("dead", "redrive", str(number))).status == 0


@pytest.mark.parametrize("state", ["failed", "completed"])
async def test_a_turn_that_has_ended_is_not_driven_again(ops: Ops, database: Database, bus: Bus, state: str) -> None:
    turn_id = await a_turn(database, state)
    number = await bury(bus, "generation", codec.encode(TurnPrepared(turn_id=turn_id)))
    said = await ops("dead", "redrive", str(number))
    assert said.status == 5
    assert f"its turn has ended as {state}" in said.err
    assert (await left(bus, DEAD_LETTERS.name), await left(bus, TURNS.name)) == (1, 0)


async def test_a_turn_that_was_never_accepted_is_not_driven(ops: Ops, database: Database, bus: Bus) -> None:
    number = await bury(bus, "context_fetch", requested(new_id()))
    said = await ops("dead", "redrive", str(number))
    assert said.status == 5
    assert "never accepted" in said.err


async def test_what_cannot_be_read_is_not_sent(ops: Ops, database: Database, bus: Bus) -> None:
    number = await bury(bus, "generation", b"\xc1")
    assert (await ops("dead", "redrive", str(number))).status == 5
    assert await left(bus, DEAD_LETTERS.name) == 1


async def test_a_letter_that_is_not_there_is_an_exit_code_of_its_own(ops: Ops, database: Database, bus: Bus) -> None:
    await bury(bus, "generation", b"\xc1")
    assert (await ops("dead", "show", "999999")).status == 3
