"""The clock tells the time anywhere, and says what it needs where it cannot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engines.tools.clock import Clock
from workers.engines.tools.port import ToolFailed

FRIDAY = datetime(2026, 11, 20, 19, 42, 52, 999_999, tzinfo=UTC)
CLOCK = Clock(lambda: FRIDAY)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "2026-11-20T19:42:52+00:00 (Friday, UTC)"),
        ({"timezone": ""}, "2026-11-20T19:42:52+00:00 (Friday, UTC)"),
        ({"timezone": "Europe/Berlin"}, "2026-11-20T20:42:52+01:00 (Friday, Europe/Berlin)"),
        ({"timezone": "Asia/Tokyo"}, "2026-11-21T04:42:52+09:00 (Saturday, Asia/Tokyo)"),
        ({"timezone": "Asia/Tokyo", "mood": "good"}, "2026-11-21T04:42:52+09:00 (Saturday, Asia/Tokyo)"),
    ],
)
async def test_the_time_is_told_where_it_is_asked_for(arguments: dict[str, Any], told: str) -> None:
    assert await CLOCK.run(arguments, "key") == told


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "Europe", "../../etc/passwd", "/etc/localtime", "a\0b", "\ud800", "x" * 5000, 7, ["UTC"]]
)
async def test_a_zone_that_does_not_exist_is_an_answer_to_the_model(name: Any) -> None:
    with pytest.raises(ToolFailed, match="Europe/Berlin"):
        await CLOCK.run({"timezone": name}, "key")


async def test_without_another_clock_it_is_now() -> None:
    told = datetime.fromisoformat((await Clock().run({}, "key")).partition(" ")[0])
    assert abs(told - datetime.now(UTC)) < timedelta(seconds=5)


@given(st.text(max_size=20))
def test_whatever_a_model_asks_it_gets_an_answer(name: str) -> None:
    work = CLOCK.run({"timezone": name}, "key")
    with pytest.raises((StopIteration, ToolFailed)):
        work.send(None)


def test_it_may_be_asked_again() -> None:
    assert CLOCK.idempotent
    assert CLOCK.spec.function.name == "clock"
