"""What becomes of a value, a fault, an error and a delay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors
from structlog.testing import capture_logs

from schemas import codec
from schemas.faults import EngineInternal, NotFound
from schemas.records import Pong
from workers.records.answers import answer, within


def giving(value: Any) -> Callable[[], Awaitable[Any]]:
    async def work() -> Any:
        return value

    return work


def raising(*errors: BaseException) -> Callable[[], Awaitable[Any]]:
    """Work that raises these, one each time it is tried, and then gives "done"."""
    left = list(errors)

    async def work() -> Any:
        if left:
            raise left.pop(0)
        return "done"

    return work


async def code_of(*errors: BaseException) -> str:
    answered = await answer("Ping", raising(*errors))
    assert answered.fault is not None
    return answered.fault.code


async def test_a_value_is_packed() -> None:
    answered = await answer("Ping", giving(Pong(database_ms=1.5)))
    assert answered.fault is None
    assert codec.decode(bytes(answered.value or b""), Pong) == Pong(database_ms=1.5)


async def test_nothing_is_a_value_too() -> None:
    answered = await answer("DeleteSession", giving(None))
    assert bytes(answered.value or b"") == codec.encode(None)


async def test_a_fault_is_told_as_it_is() -> None:
    answered = await answer("GetSession", raising(NotFound("gone", param="id")))
    assert answered.fault == NotFound("gone", param="id").record


async def test_a_database_that_is_slow_is_storage_unavailable_and_logged_with_its_sqlstate() -> None:
    with capture_logs() as logs:
        assert await code_of(psycopg.errors.QueryCanceled("stopped")) == "STORAGE_UNAVAILABLE"
    assert [(line["event"], line["error"], line["sqlstate"]) for line in logs] == [
        ("storage_unavailable", "QueryCanceled", "57014")
    ]


@pytest.mark.parametrize("kind", [errors.ReadOnlySqlTransaction, errors.IdleInTransactionSessionTimeout])
async def test_a_server_that_is_no_primary_any_more_and_a_pause_of_ours_are_no_mistakes(
    kind: type[psycopg.Error],
) -> None:
    with capture_logs() as logs:
        assert await code_of(kind()) == "STORAGE_UNAVAILABLE"
    assert [(line["event"], line["log_level"]) for line in logs] == [("storage_unavailable", "warning")]


async def test_a_statement_that_the_database_refuses_is_logged_as_our_error() -> None:
    with capture_logs() as logs:
        assert await code_of(psycopg.errors.UndefinedTable("x")) == "STORAGE_UNAVAILABLE"
    assert [(line["event"], line["log_level"]) for line in logs] == [("query_refused", "error")]


async def test_a_mistake_of_ours_is_internal_logged_with_its_place_and_its_message_is_told_to_nobody() -> None:
    with capture_logs() as logs:
        answered = await answer("Ping", raising(ValueError("a person's words")))
    assert answered.fault == EngineInternal().record
    assert [(line["event"], line["log_level"], line["exc_info"]) for line in logs] == [
        ("question_failed", "error", True)
    ]


async def test_a_lost_connection_is_found_again() -> None:
    lost = psycopg.OperationalError("server closed the connection unexpectedly")
    with capture_logs() as logs:
        answered = await answer("Ping", raising(lost, psycopg.errors.AdminShutdown()))
    assert codec.decode(bytes(answered.value or b""), str) == "done"
    assert [line["event"] for line in logs] == ["database_connection_lost"] * 2


async def test_a_question_that_takes_too_long_is_given_up() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    answered = await answer("Ping", work, limit=0.01)
    assert answered.fault is not None
    assert answered.fault.code == "STORAGE_UNAVAILABLE"
    await asyncio.wait_for(cancelled.wait(), timeout=1)


async def test_work_that_does_not_stop_is_not_waited_for() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(within(0.01, stubborn()), timeout=1)
    release.set()
