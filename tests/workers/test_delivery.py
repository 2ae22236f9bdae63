"""The one delivery policy, on real messages: what is done, waits, is not ours, or is poison."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import psycopg
import pytest
from nats.aio.msg import Msg
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ops.runtime.bus import Bus, BusFull, BusUnavailable
from schemas.turns import TurnCompleted
from tests.workers.jobs import STAGE, post, standing, take
from workers.delivery import BACK_OFF, Fenced, Later, back_off, deliver, is_away

EVENT = TurnCompleted(turn_id="a")


class Judge:
    """Says whether a failure was the last one, and remembers what it was asked."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers, self.asked = list(answers), list[Exception]()
        self.deliveries: list[int] = []

    async def poisoned(self, event: TurnCompleted, error: Exception, deliveries: int) -> bool:
        self.asked.append(error)
        self.deliveries.append(deliveries)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def raising(error: BaseException) -> Callable[[Any], Awaitable[None]]:
    async def work(event: Any) -> None:
        raise error

    return work


async def settle(message: Msg, work: Callable[[Any], Awaitable[None]], judge: Judge | None = None) -> Judge:
    judge = judge or Judge()
    await deliver(message, STAGE, EVENT, work, judge.poisoned)
    return judge


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("cozy_stage_work_total", {"stage": STAGE, "outcome": outcome}) or 0.0


@pytest.fixture
async def message(bus: Bus) -> Msg:
    """The only message of the queue, in hand."""
    await post(bus, "a")
    return await take(bus)


async def test_what_is_done_is_gone(message: Msg, bus: Bus) -> None:
    done, before = list[Any](), counted("done")

    async def work(event: Any) -> None:
        done.append(event)

    await settle(message, work)
    assert done == [EVENT]
    assert await standing(bus) == (0, 0)
    assert counted("done") == before + 1


async def test_what_must_wait_comes_again_and_not_before_its_time(message: Msg, bus: Bus) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    judge = await settle(message, raising(Later(0.1)))
    assert (await take(bus)).metadata.num_delivered == 2
    assert clock() - began >= 0.1
    assert judge.asked == []


async def test_what_another_owns_is_left_alone(message: Msg, bus: Bus) -> None:
    said: asyncio.Queue[bytes] = asyncio.Queue()
    listener = await bus.listen("$JS.ACK.>", lambda _, data: said.put_nowait(data))
    before = counted("fenced")
    judge = await settle(message, raising(Fenced()))
    assert await standing(bus) == (0, 1)
    await listener.close()
    assert said.empty()
    assert judge.asked == []
    assert counted("fenced") == before + 1


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError(),
        psycopg.InterfaceError(),
        psycopg.errors.AdminShutdown(),
        psycopg.errors.IdleInTransactionSessionTimeout(),
        psycopg.errors.ReadOnlySqlTransaction(),
        BusUnavailable("away"),
        BusFull("full"),
        nats.errors.ConnectionClosedError(),
        TimeoutError(),
        ConnectionResetError(),
        ExceptionGroup("side by side", [psycopg.OperationalError(), ExceptionGroup("below", [TimeoutError()])]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_is_away_is_no_fault_of_the_message(message: Msg, bus: Bus, error: Exception) -> None:
    judge = await settle(message, raising(error))
    assert judge.asked == []
    assert (await take(bus)).metadata.num_delivered == 2


@pytest.mark.parametrize(
    "error",
    [
        LookupError(),
        psycopg.errors.UniqueViolation(),
        psycopg.DataError(),
        ExceptionGroup("side by side", [psycopg.OperationalError(), LookupError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_any_other_failure_is_the_turn_s_own(message: Msg, bus: Bus, error: Exception) -> None:
    assert not is_away(error)
    with capture_logs() as logs:
        judge = await settle(message, raising(error), Judge(False))
    assert judge.asked == [error]
    assert [line["event"] for line in logs] == ["work_failed"]
    assert (await take(bus)).metadata.num_delivered == 2


async def test_after_the_last_failure_the_message_is_gone(message: Msg, bus: Bus) -> None:
    await settle(message, raising(LookupError()), Judge(True))
    assert await standing(bus) == (0, 0)


@pytest.mark.parametrize(
    "error", [psycopg.OperationalError(), psycopg.DataError()], ids=lambda error: type(error).__name__
)
async def test_a_failure_that_could_not_be_counted_counts_another_time(
    message: Msg, bus: Bus, error: Exception
) -> None:
    judge = Judge(error, False)
    await settle(message, raising(LookupError()), judge)
    again = await take(bus)
    await settle(again, raising(LookupError()), judge)
    assert judge.deliveries == [1, 2]


async def test_a_process_that_stops_hands_over_at_once(message: Msg, bus: Bus) -> None:
    working, before = asyncio.Event(), counted("handed_over")

    async def work(event: Any) -> None:
        working.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(settle(message, work))
    await working.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await take(bus)).metadata.num_delivered == 2
    assert counted("handed_over") == before + 1


async def test_a_message_that_comes_again_is_counted(message: Msg, bus: Bus) -> None:
    def redelivered() -> float:
        return REGISTRY.get_sample_value("cozy_redeliveries_total", {"stage": STAGE}) or 0.0

    before = redelivered()
    await settle(message, raising(Later(0.01)))
    assert redelivered() == before
    await settle(await take(bus), raising(Later(0.01)))
    assert redelivered() == before + 1


async def test_a_failure_s_words_stay_out_of_the_line_about_what_is_away(message: Msg) -> None:
    with capture_logs() as logs:
        await settle(message, raising(psycopg.OperationalError("password of ann")))
    assert [(line["event"], line["error"]) for line in logs] == [("work_postponed", "OperationalError")]


def test_each_try_waits_longer_up_to_a_limit() -> None:
    waits = [back_off(tries) for tries in range(1, 10)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (BACK_OFF[0], BACK_OFF[-1])
