"""A message to a session that is still answering another: it waits, is refused, or ends the other."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from schemas.faults import (
    InvalidValue,
    SessionBusy,
    StorageUnavailable,
)
from schemas.ids import new_id
from schemas.subjects import verdict
from schemas.turns import TurnState
from tests.workers.asked import claimed, column, finish, reply
from tests.workers.context_fetch.accepting import (
    A1,
    HOUSE,
    U1,
    count,
    in_session,
    turns_of,
)
from tests.workers.storage.rows import add_session
from workers.context_fetch.acceptance import Acceptance, TooLate
from workers.storage.arrivals import Arrivals
from workers.storage.turns import Turns


async def test_a_message_to_a_busy_session_waits(acceptance: Acceptance, user_id: str, session_id: str) -> None:
    await acceptance.accept(in_session(user_id, session_id))
    for _ in range(2):
        _, state = await acceptance.accept(in_session(user_id, session_id))
        assert state is TurnState.QUEUED


async def test_a_message_that_must_not_wait_is_refused_by_a_busy_session(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    await acceptance.accept(in_session(user_id, session_id))
    with pytest.raises(SessionBusy):
        await acceptance.accept(in_session(user_id, session_id, on_busy="reject"))
    assert (await count(turns_of(acceptance), "turns"), await count(turns_of(acceptance), "messages")) == (1, 1)


async def test_what_was_refused_is_not_taken_when_it_comes_again_and_the_session_is_free(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    """Its gateway sends it again until there is a verdict, and its client was told the first one."""
    turns, first = turns_of(acceptance), in_session(user_id, session_id)
    await acceptance.accept(first)
    refused = in_session(user_id, session_id, on_busy="reject")
    with pytest.raises(SessionBusy):
        await acceptance.accept(refused)
    await finish(turns, await claimed(turns, first.turn_id))
    with pytest.raises(TooLate):
        await acceptance.accept(refused)
    assert await column(turns.database, "SELECT id AS value FROM turns") == [first.turn_id]


async def test_a_client_that_was_refused_may_ask_again(acceptance: Acceptance, user_id: str, session_id: str) -> None:
    turns, first = turns_of(acceptance), in_session(user_id, session_id)
    await acceptance.accept(first)
    refused = in_session(user_id, session_id, on_busy="reject")
    for question in (refused, msgspec.structs.replace(refused, verdict_subject=verdict("g", new_id()))):
        with pytest.raises(SessionBusy):
            await acceptance.accept(question)
    await finish(turns, await claimed(turns, first.turn_id))
    _, state = await acceptance.accept(msgspec.structs.replace(refused, verdict_subject=verdict("g", new_id())))
    assert state is TurnState.PREPARED


@pytest.mark.parametrize("messages", [[HOUSE], [U1, A1]])
async def test_a_message_with_nothing_new_is_refused_at_once_even_where_it_would_wait(
    acceptance: Acceptance, user_id: str, session_id: str, messages: list[Any]
) -> None:
    await acceptance.accept(in_session(user_id, session_id))
    with pytest.raises(InvalidValue):
        await acceptance.accept(in_session(user_id, session_id, messages))


async def test_many_messages_to_busy_sessions_need_one_connection_each(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    """The pool has four. Whoever needs a second one while all are taken waits for those who wait for it."""
    sessions = [session_id, *[await add_session(acceptance.arrivals.database, user_id) for _ in range(9)]]
    for each in sessions:
        await acceptance.accept(in_session(user_id, each))
    async with asyncio.timeout(2):
        verdicts = await asyncio.gather(*(acceptance.accept(in_session(user_id, each)) for each in sessions * 4))
    assert {state for _, state in verdicts} == {TurnState.QUEUED}


async def test_a_turn_that_is_too_late_is_refused_and_stops_nobody(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    await acceptance.accept(in_session(user_id, session_id))
    for on_busy in ("queue", "interrupt"):
        arrival = in_session(user_id, session_id, on_busy=on_busy)
        with pytest.raises(StorageUnavailable):
            await acceptance.accept(msgspec.structs.replace(arrival, expires_at=arrival.asked_at - 1))
    assert await column(acceptance.arrivals.database, "SELECT state AS value FROM turns") == ["prepared"]


async def test_an_interrupting_message_ends_what_waits_and_what_runs_and_is_next(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    turns = turns_of(acceptance)
    first, second, third = (in_session(user_id, session_id, words) for words in "123")
    await acceptance.accept(first)
    held = await claimed(turns, first.turn_id)
    await acceptance.accept(second)
    third = in_session(user_id, session_id, "3", on_busy="interrupt")
    _, state = await acceptance.accept(third)
    assert state is TurnState.QUEUED
    states = await column(turns.database, "SELECT state AS value FROM turns ORDER BY ord")
    assert states == ["generating", "cancelled", "queued"]
    await finish(turns, held, "re 1")
    assert [ready.turn_id for ready in await acceptance.arrivals.release(session_id)] == [third.turn_id]


async def test_where_nobody_is_at_work_an_interrupting_message_runs_at_once(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    for _ in range(2):
        await acceptance.accept(in_session(user_id, session_id))
    _, state = await acceptance.accept(in_session(user_id, session_id, on_busy="interrupt"))
    assert state is TurnState.PREPARED


async def test_an_interrupting_message_that_comes_again_does_not_stop_itself(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    arrival = in_session(user_id, session_id, on_busy="interrupt")
    for _ in range(2):
        verdict, state = await acceptance.accept(arrival)
    assert (verdict.attached, state) == (True, TurnState.PREPARED)


async def test_a_free_session_takes_a_message_that_must_not_wait(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    _, state = await acceptance.accept(in_session(user_id, session_id, on_busy="reject"))
    assert state is TurnState.PREPARED


async def test_of_many_messages_at_once_one_runs_and_the_others_wait(
    acceptance: Acceptance, user_id: str, turns: Turns
) -> None:
    for _ in range(5):
        session_id = await add_session(turns.database, user_id)
        arrivals = [in_session(user_id, session_id) for _ in range(4)]
        states = [state for _, state in await asyncio.gather(*map(acceptance.accept, arrivals))]
        assert sorted(states) == [TurnState.PREPARED, *[TurnState.QUEUED] * 3]


async def test_an_end_and_an_arrival_at_once_leave_nobody_waiting_for_nothing(
    acceptance: Acceptance, user_id: str, turns: Turns
) -> None:
    """Whoever comes second sees the other: the arrival runs at once, or is there to be released after the end."""
    for _ in range(10):
        session_id = await add_session(turns.database, user_id)
        first, second = in_session(user_id, session_id), in_session(user_id, session_id)
        await acceptance.accept(first)
        held = await claimed(turns, first.turn_id)
        (_, state), ended = await asyncio.gather(
            acceptance.accept(second), turns.finish(held, TurnState.COMPLETED, reply("x"), [])
        )
        assert ended is not None
        if state is TurnState.QUEUED:
            [ready] = await Arrivals(turns.database).release(session_id)
            assert ready.turn_id == second.turn_id
