"""One request asked for twice without a key, its retry before or after its first try: it makes one turn."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas.faults import EngineTimeout
from schemas.ids import id_from
from schemas.turns import TurnRequested, TurnState
from tests.workers.asked import asked, claimed, column, finish
from tests.workers.context_fetch.accepting import acceptance_with, count, in_session, turns_of
from tests.workers.storage.rows import add_session
from workers.context_fetch.acceptance import Acceptance
from workers.storage.turns import Turns

LATE = EngineTimeout().record
Tries = Callable[..., TurnRequested]


@pytest.fixture(params=["alone", "in a session"])
def tries(request: pytest.FixtureRequest, user_id: str, session_id: str) -> Tries:
    """Tries of one and the same request, asked for so many seconds ago."""

    def made(ago: float = 0, **changes: Any) -> TurnRequested:
        arrival = in_session(user_id, session_id) if request.param == "in a session" else asked(user_id)
        turn_id = id_from(int((time.time() - ago) * 1000), os.urandom(10))
        return msgspec.structs.replace(arrival, **({"turn_id": turn_id, "fingerprint": "f"} | changes))

    return made


async def test_a_retry_is_led_to_the_turn_it_means(acceptance: Acceptance, tries: Tries) -> None:
    verdict, _ = await acceptance.accept(tries(1))
    again, state = await acceptance.accept(tries(retried=True))
    assert again == msgspec.structs.replace(verdict, attached=True)
    assert state is TurnState.PREPARED
    assert (await count(turns_of(acceptance), "turns"), await count(turns_of(acceptance), "messages")) == (1, 1)


async def test_a_first_try_that_its_retry_has_overtaken_is_led_to_that_one(
    acceptance: Acceptance, tries: Tries
) -> None:
    verdict, _ = await acceptance.accept(tries(retried=True))
    overtaken, state = await acceptance.accept(tries(1))
    assert overtaken == msgspec.structs.replace(verdict, attached=True)
    assert state is TurnState.PREPARED
    assert (await count(turns_of(acceptance), "turns"), await count(turns_of(acceptance), "messages")) == (1, 1)


async def test_a_first_try_that_comes_when_its_retry_has_been_answered_is_not_answered_again(
    acceptance: Acceptance, tries: Tries
) -> None:
    retry = tries(retried=True)
    await acceptance.accept(retry)
    await finish(turns_of(acceptance), await claimed(turns_of(acceptance), retry.turn_id))
    verdict, state = await acceptance.accept(tries(1))
    assert (verdict.turn_id, state) == (retry.turn_id, TurnState.COMPLETED)
    assert await count(turns_of(acceptance), "turns") == 1


async def test_a_retry_that_comes_again_is_the_same_turn(acceptance: Acceptance, tries: Tries) -> None:
    retry = tries(retried=True)
    verdict, _ = await acceptance.accept(retry)
    assert (await acceptance.accept(retry))[0] == msgspec.structs.replace(verdict, attached=True)


async def test_what_is_asked_anew_after_a_retry_is_a_new_turn(acceptance: Acceptance, tries: Tries) -> None:
    await acceptance.accept(tries(1, retried=True))
    verdict, _ = await acceptance.accept(tries())
    assert not verdict.attached
    assert await count(turns_of(acceptance), "turns") == 2


@pytest.mark.parametrize(
    "changes",
    [{"retried": True, "keyed": True}, {"retried": False}, {"retried": True, "fingerprint": "g"}],
    ids=["with a key", "no retry", "other words"],
)
async def test_what_is_no_retry_of_another_is_a_new_turn(
    acceptance: Acceptance, tries: Tries, changes: dict[str, Any]
) -> None:
    await acceptance.accept(tries(1))
    verdict, _ = await acceptance.accept(tries(**changes))
    assert not verdict.attached
    assert await count(turns_of(acceptance), "turns") == 2


@pytest.mark.parametrize(("first", "retry"), [(True, False), (False, True), (True, True)])
async def test_tries_with_keys_go_by_these_alone(
    acceptance: Acceptance, tries: Tries, first: bool, retry: bool
) -> None:
    await acceptance.accept(tries(retried=True, keyed=retry))
    verdict, _ = await acceptance.accept(tries(1, keyed=first))
    assert not verdict.attached


async def test_a_retry_of_a_turn_alone_that_failed_tries_again(acceptance: Acceptance, user_id: str) -> None:
    first = asked(user_id, fingerprint="f")
    await acceptance.accept(first)
    await turns_of(acceptance).fail(first.turn_id, LATE)
    verdict, state = await acceptance.accept(asked(user_id, fingerprint="f", retried=True))
    assert (verdict.attached, state) == (False, TurnState.PREPARED)


async def test_a_retry_in_a_session_is_led_to_its_turn_even_where_that_failed(
    acceptance: Acceptance, user_id: str, session_id: str
) -> None:
    """A second one would say the same thing twice in one conversation."""
    first = in_session(user_id, session_id)
    await acceptance.accept(first)
    await turns_of(acceptance).fail(first.turn_id, LATE)
    again = in_session(user_id, session_id)
    again = msgspec.structs.replace(again, fingerprint=first.fingerprint, retried=True)
    verdict, state = await acceptance.accept(again)
    assert (verdict.turn_id, state) == (first.turn_id, TurnState.FAILED)


async def test_a_try_that_waits_for_room_is_found_by_the_other(
    turns: Turns, bus: Bus, config: Config, user_id: str
) -> None:
    acceptance = acceptance_with(turns, bus, config, limit=1)
    await acceptance.accept(asked(user_id))
    first = asked(user_id, fingerprint="f", turn_id=id_from(0, os.urandom(10)))
    retry, state = await acceptance.accept(asked(user_id, fingerprint="f", retried=True))
    assert state is TurnState.QUEUED
    verdict, state = await acceptance.accept(first)
    assert (verdict.turn_id, verdict.attached, state) == (retry.turn_id, True, TurnState.QUEUED)


async def test_both_tries_at_once_say_it_once_in_a_session(
    turns: Turns, bus: Bus, config: Config, user_id: str
) -> None:
    """Taken in by two processes, which share nothing but the session's row."""
    for _ in range(10):
        session_id = await add_session(turns.database, user_id)
        first, retry = in_session(user_id, session_id), in_session(user_id, session_id)
        first = msgspec.structs.replace(first, turn_id=id_from(0, os.urandom(10)), fingerprint=session_id)
        retry = msgspec.structs.replace(retry, fingerprint=session_id, retried=True)
        taken = [acceptance_with(turns, bus, config).accept(each) for each in (first, retry)]
        (one, _), (other, _) = await asyncio.gather(*taken)
        assert one.turn_id == other.turn_id
        said = "SELECT count(*) AS value FROM messages WHERE session_id = %(a)s"
        assert await column(turns.database, said, session_id) == [1]
