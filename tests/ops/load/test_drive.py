"""Driving a real server, whatever it does."""

from typing import Any

import pytest

from ops.load.drive import drive
from ops.load.plan import Plan, Target, target
from ops.load.users import NotPrepared
from tests.ops.load.conftest import Server

UNUSED = "http://127.0.0.1:9"  # the discard port: nothing listens there


def a_plan(where: Target, **changes: Any) -> Plan:
    return Plan(**{"target": where, "requests": 4, "concurrency": 2, "tokens": 5, "timeout": 5.0, **changes})


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ("busy", "http 503 ENGINE_OVERLOADED"),
        ("plain-json", "not an event stream"),
        ("hang-up", "closed before response"),
        ("no-http", "malformed http"),
        ("cut", "cut without [DONE]"),
        ("undone", "cut without [DONE]"),
        ("error-event", "stream error ENGINE_FAILED"),
        ("malformed", "malformed event"),
        ("empty", "empty reply"),
    ],
)
async def test_a_fault_of_the_server_is_counted_under_its_name(server: Server, model: str, fault: str) -> None:
    figures = (await drive(a_plan(target(server.url, model)))).target
    assert (figures.ok, figures.failed, figures.errors) == (0, 4, {fault: 4})
    assert figures.tokens == 0


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ("silent", "timeout before response"),
        ("mute", "timeout before first token"),
        ("stuck", "timeout mid-stream"),
    ],
)
async def test_a_server_that_hangs_costs_no_more_than_the_timeout(server: Server, model: str, fault: str) -> None:
    figures = (await drive(a_plan(target(server.url, model), concurrency=4, timeout=0.1))).target
    assert figures.errors == {fault: 4}
    assert 0.1 <= figures.seconds < 1


async def test_a_server_that_is_away_is_counted_and_not_raised() -> None:
    outcome = await drive(a_plan(target(UNUSED, "m")))
    assert outcome.target.errors == {"connect ECONNREFUSED": 4}
    assert outcome.failed == 4


async def test_whole_replies_are_counted_with_their_tokens_and_bytes(server: Server) -> None:
    figures = (await drive(a_plan(target(server.url, "good", key="sk-1"), requests=30))).target
    assert (figures.ok, figures.failed, figures.tokens, figures.counted_by) == (30, 0, 150, "usage")
    assert (figures.content_events, figures.ttft_ms.count, figures.gap_ms.count) == (150, 30, 120)
    assert figures.bytes_in > 30 * 5 * 100
    assert figures.requests_per_s == pytest.approx(30 / figures.seconds)
    assert figures.tokens_per_s == pytest.approx(150 / figures.seconds)


async def test_connections_are_kept_and_never_more_than_asked_for(server: Server) -> None:
    figures = (await drive(a_plan(target(server.url, "good", key="sk-1"), requests=30, concurrency=3))).target
    seen = server.seen()
    assert seen["connections"] == 3 + 1
    assert (seen["peak_open"], figures.peak_open) == (3, 3)
    assert seen["models"] == ["good"] * 30
    assert set(seen["keys"]) == {"Bearer sk-1"}


async def test_a_server_that_closes_after_each_reply_is_no_fault(server: Server) -> None:
    figures = (await drive(a_plan(target(server.url, "close-delimited")))).target
    assert (figures.ok, figures.failed) == (4, 0)
    assert server.seen()["connections"] == 4 + 1


async def test_where_no_usage_is_sent_the_report_can_say_so(server: Server) -> None:
    figures = (await drive(a_plan(target(server.url, "no-usage")))).target
    assert (figures.tokens, figures.counted_by) == (20, "events")


async def test_a_pace_shows_in_the_gaps_and_not_in_the_first_token(server: Server) -> None:
    figures = (await drive(a_plan(target(server.url, "good"), pace=50))).target
    assert figures.gap_ms.p50 == pytest.approx(20, abs=8)
    assert figures.ttft_ms.p50 is not None
    assert figures.ttft_ms.p50 < 20


async def test_an_open_run_opens_streams_at_their_time_while_others_are_open(server: Server) -> None:
    plan = a_plan(target(server.url, "good"), requests=20, open_over=0.2, pace=20, tokens=6)
    figures = (await drive(plan)).target
    assert (figures.ok, figures.peak_open) == (20, 20)  # each lasts 0.25 s, all are open within 0.2 s
    assert 0.19 + 0.25 <= figures.seconds < 1


async def test_each_user_chats_in_a_session_of_its_own(server: Server) -> None:
    plan = a_plan(target(server.url, "in-session", sessions=True), requests=12, concurrency=3)
    figures = (await drive(plan)).target
    assert (figures.ok, figures.failed) == (12, 0)
    assert len(server.seen()["sessions"]) == 3


async def test_without_sessions_none_is_made_or_named(server: Server) -> None:
    figures = (await drive(a_plan(target(server.url, "in-session")))).target
    assert figures.errors == {"http 404 RESOURCE_NOT_FOUND": 4}
    assert server.seen()["sessions"] == []


async def test_a_session_that_cannot_be_made_stops_the_run(server: Server) -> None:
    broken = target(f"{server.url}/broken", "in-session", sessions=True)
    with pytest.raises(NotPrepared, match="http 503 STORAGE_UNAVAILABLE"):
        await drive(a_plan(broken))


async def test_warming_up_is_not_measured(server: Server) -> None:
    figures = (await drive(a_plan(target(server.url, "good"), warmup=5))).target
    assert figures.ok == 4
    assert len(server.seen()["models"]) == 9


async def test_a_warm_up_that_fails_stops_the_run(server: Server) -> None:
    with pytest.raises(NotPrepared, match="http 503 ENGINE_OVERLOADED"):
        await drive(a_plan(target(server.url, "busy"), warmup=1))


async def test_two_servers_take_turns_and_are_told_apart(server: Server, other_server: Server) -> None:
    there, other = target(server.url, "good"), target(other_server.url, "cut")
    outcome = await drive(a_plan(there, compare=other, requests=16))
    assert outcome.compare is not None
    assert (outcome.target.ok, outcome.target.failed) == (16, 0)
    assert (outcome.compare.ok, outcome.compare.errors) == (0, {"cut without [DONE]": 16})
    assert outcome.failed == 16


async def test_turns_alternate_block_by_block(server: Server) -> None:
    plan = a_plan(target(server.url, "good"), compare=target(server.url, "no-usage"), requests=24)
    await drive(plan)
    assert server.seen()["models"] == (["good"] * 8 + ["no-usage"] * 8) * 3
