"""Accepting a turn: its row, its place among the others, its repetition, its refusal."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas import codec
from schemas.context import ContextBundle
from schemas.faults import (
    IdempotencyMismatch,
    InvalidValue,
    ModelNotFound,
    NotFound,
)
from schemas.ids import new_id, part_of
from schemas.openai import AssistantMessage, ToolMessage
from schemas.subjects import shard_of
from schemas.turns import TurnState
from tests.workers.asked import OWNER, asked, calls_of, chat, claimed, column, finish, reply
from tests.workers.context_fetch.accepting import (
    A1,
    HOUSE,
    SHARDS,
    U1,
    U2,
    acceptance_with,
    bundle_of,
    count,
    in_session,
    turns_of,
)
from tests.workers.storage.rows import add_user
from workers.context_fetch.acceptance import Acceptance
from workers.storage.turn_rows import NewMessage
from workers.storage.turns import Turns


async def test_a_turn_alone_is_prepared_at_once_in_a_hidden_session(acceptance: Acceptance, user_id: str) -> None:
    arrival = asked(user_id, chat([HOUSE, U1, A1, U2]))
    verdict, state = await acceptance.accept(arrival)
    hidden = part_of(arrival.turn_id, "session")
    assert (verdict.turn_id, verdict.session_id, state) == (arrival.turn_id, hidden, TurnState.PREPARED)
    assert (verdict.personality_id, verdict.shard, verdict.attached) == ("default", shard_of(hidden, SHARDS), False)
    assert (await bundle_of(turns_of(acceptance), arrival.turn_id)).incoming == (HOUSE, U1, A1, U2)


async def test_only_what_is_new_is_stored(acceptance: Acceptance, user_id: str) -> None:
    await acceptance.accept(asked(user_id, chat([HOUSE, U1, A1, U2])))
    assert await column(acceptance.arrivals.database, "SELECT content AS value FROM messages") == ["two"]


async def test_a_turn_in_a_free_session_knows_what_was_said_there(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    turns = turns_of(acceptance)
    first = in_session(user_id, session_id, [U1])
    await acceptance.accept(first)
    await finish(turns, await claimed(turns, first.turn_id), "yes")
    second = in_session(user_id, session_id, [HOUSE, U1, A1, U2])
    verdict, state = await acceptance.accept(second)
    assert (state, verdict.session_id, verdict.ignored_messages) == (TurnState.PREPARED, session_id, 2)
    assert verdict.personality_id == "tutor"
    bundle = await bundle_of(turns, second.turn_id)
    assert (*bundle.history, *bundle.incoming) == (HOUSE, U1, A1, U2)
    assert [tool.function.name for tool in bundle.tools] == ["clock"]


async def test_a_history_is_cut_to_its_limits(
    turns: Turns, bus: Bus, config: Config, user_id: str, session_id: str
) -> None:
    context = msgspec.structs.replace(config.context, history_messages=3)
    acceptance = acceptance_with(turns, bus, msgspec.structs.replace(config, context=context))
    for words in ("1", "2", "3"):
        arrival = in_session(user_id, session_id, words)
        await acceptance.accept(arrival)
        held = await claimed(turns, arrival.turn_id)
        await finish(turns, held, f"re {words}")
    bundle = codec.decode(held.bundle, ContextBundle)
    said = [message.content for message in (*bundle.history, *bundle.incoming)]
    assert said == ["2", "re 2", "3"]


async def test_a_turn_that_comes_again_is_the_same_turn(acceptance: Acceptance, user_id: str) -> None:
    arrival = asked(user_id)
    first, _ = await acceptance.accept(arrival)
    again, state = await acceptance.accept(arrival)
    assert again == msgspec.structs.replace(first, attached=True)
    assert state is TurnState.PREPARED
    assert (await count(turns_of(acceptance), "turns"), await count(turns_of(acceptance), "messages")) == (1, 1)


@pytest.mark.parametrize("end_it", [True, False])
async def test_a_turn_of_a_session_that_comes_again_is_the_same_turn(
    acceptance: Acceptance, user_id: str, session_id: str, end_it: bool
) -> None:
    arrival = in_session(user_id, session_id, on_busy="reject")
    first, _ = await acceptance.accept(arrival)
    if end_it:
        await finish(turns_of(acceptance), await claimed(turns_of(acceptance), arrival.turn_id))
    again, state = await acceptance.accept(arrival)
    assert again == msgspec.structs.replace(first, attached=True)
    assert state is (TurnState.COMPLETED if end_it else TurnState.PREPARED)
    assert await count(turns_of(acceptance), "turns") == 1


async def test_a_turn_that_comes_many_times_at_once_is_accepted_once(acceptance: Acceptance, user_id: str) -> None:
    for _ in range(20):
        arrival = asked(user_id)
        verdicts = [verdict for verdict, _ in await asyncio.gather(*(acceptance.accept(arrival) for _ in range(4)))]
        assert sorted(verdict.attached for verdict in verdicts) == [False, True, True, True]
        assert len({(verdict.turn_id, verdict.created, verdict.session_id) for verdict in verdicts}) == 1


@pytest.mark.parametrize("session", [True, False])
async def test_a_key_that_comes_with_another_body_is_refused(
    acceptance: Acceptance, user_id: str, session_id: str, session: bool
) -> None:
    arrival = in_session(user_id, session_id) if session else asked(user_id)
    await acceptance.accept(arrival)
    other = msgspec.structs.replace(arrival, fingerprint="another", request=chat("other"))
    with pytest.raises(IdempotencyMismatch):
        await acceptance.accept(other)
    assert (await count(turns_of(acceptance), "turns"), await count(turns_of(acceptance), "messages")) == (1, 1)


async def test_another_user_s_turn_is_not_found_by_its_id(acceptance: Acceptance, user_id: str) -> None:
    arrival = asked(user_id)
    await acceptance.accept(arrival)
    stranger = await add_user(acceptance.arrivals.database)
    with pytest.raises(NotFound):
        await acceptance.accept(msgspec.structs.replace(arrival, user_id=stranger))


async def test_another_user_s_session_is_not_found(acceptance: Acceptance, session_id: str) -> None:
    stranger = await add_user(acceptance.arrivals.database)
    for each in (session_id, new_id()):
        with pytest.raises(NotFound) as raised:
            await acceptance.accept(in_session(stranger, each))
        assert raised.value.record.param == "cozy.session_id"
    assert await count(turns_of(acceptance), "turns") == 0


async def test_results_for_the_client_s_tools_are_stored_and_answer_its_calls(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    turns = turns_of(acceptance)
    first = in_session(user_id, session_id, "look")
    await acceptance.accept(first)
    held = await claimed(turns, first.turn_id)
    call = calls_of(first.turn_id, "look")[0][1]
    metadata = {"tool_calls": [msgspec.to_builtins(call)]}
    said = NewMessage(id=part_of(first.turn_id, "reply", 0, 0), role="assistant", content=None, metadata=metadata)
    await turns.finish(held, TurnState.COMPLETED, reply(), [said])
    told = ToolMessage(content="a cat", tool_call_id=call.id)
    second = in_session(user_id, session_id, [told])
    await acceptance.accept(second)
    bundle = await bundle_of(turns, second.turn_id)
    assert bundle.incoming[-2:] == (AssistantMessage(content=None, tool_calls=[call]), told)


async def test_a_request_may_narrow_the_personality_s_tools(acceptance: Acceptance, user_id: str) -> None:
    for allowed, tools in (([], ()), (["clock"], ("clock",)), (["other"], ())):
        arrival = asked(user_id, chat(cozy={"personality_id": "tutor", "allowed_tools": allowed}))
        await acceptance.accept(arrival)
        bundle = await bundle_of(turns_of(acceptance), arrival.turn_id)
        assert tuple(tool.function.name for tool in bundle.tools) == tools


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model": "gpt-x"}, ModelNotFound),
        ({"model": "cozy/nobody"}, ModelNotFound),
        ({"cozy": {"personality_id": "nobody"}}, InvalidValue),
    ],
)
async def test_what_nobody_can_answer_leaves_nothing_behind(
    acceptance: Acceptance, user_id: str, changes: dict[str, Any], fault: type[Exception]
) -> None:
    with pytest.raises(fault):
        await acceptance.accept(asked(user_id, chat(**changes)))
    assert (await count(turns_of(acceptance), "turns"), await count(turns_of(acceptance), "sessions")) == (0, 0)


async def test_a_raw_model_alone_has_no_personality(acceptance: Acceptance, user_id: str) -> None:
    arrival = asked(user_id, chat(model="scripted-small"))
    verdict, _ = await acceptance.accept(arrival)
    assert verdict.personality_id is None
    held = await turns_of(acceptance).claim(arrival.turn_id, 0, OWNER)
    assert held is not None
    assert codec.decode(held.bundle, ContextBundle).passthrough
