"""Replies board, depart together, and none holds up the others."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from workers.generation.pace import Pace


class Passenger:
    """A reply that travels once its turn has come, or fails to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.travelled, self._error = asyncio.Event(), error
        self.journeys = 0

    async def flush(self) -> None:
        self.journeys += 1
        self.travelled.set()
        if self._error:
            raise self._error


async def arrive(*passengers: Passenger) -> None:
    async with asyncio.timeout(10):
        for each in passengers:
            await each.travelled.wait()


async def test_who_boards_twice_travels_once() -> None:
    pace, passenger, last = Pace(0), Passenger(), Passenger()
    for each in (passenger, passenger, last):
        pace.board(each)
    await arrive(passenger, last)
    assert passenger.journeys == 1


async def test_who_leaves_does_not_travel() -> None:
    pace, gone, last = Pace(0), Passenger(), Passenger()
    pace.board(gone)
    pace.board(last)
    pace.leave(gone)
    await arrive(last)
    assert gone.journeys == 0


async def test_one_that_cannot_travel_keeps_nobody_back() -> None:
    pace, broken, behind = Pace(0), Passenger(LookupError("words of a person")), Passenger()
    pace.board(broken)
    pace.board(behind)
    with capture_logs() as logs:
        await arrive(broken, behind)
    assert [(line["event"], line["error"]) for line in logs] == [("flush_failed", "LookupError")]
    assert "person" not in str(logs)
