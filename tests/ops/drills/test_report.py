"""A report counts what was found, and measures only the streams that a fault met."""

from __future__ import annotations

from ops.drills.audit import LOST, Violation, audit
from ops.drills.faults import KILL, Done
from ops.drills.report import details, figures, logged_errors, table
from tests.ops.drills.worlds import chat, turn, world

BEGAN = 100.0


def fault(at: float) -> Done:
    return Done(at=at, clock=0, kind=KILL, target="generation", pid=1)


def silent(number: int, first: float, silence: float, **about: float) -> object:
    """A chat whose first word came `first` seconds after the faults began, and whose last 5 s later."""
    times = {"first_at": BEGAN + first, "ended_at": BEGAN + first + 5, "asked_at": BEGAN + first - 1}
    return chat(number, **{**times, "silence": silence, "silence_at": BEGAN + first, **about})


def test_a_world_without_faults_is_kept() -> None:
    found = figures(world(), audit(world()))
    assert found.kept
    assert (found.chats, found.refused, found.interrupted) == (2, 0, 0)


def test_a_violation_breaks_the_promise() -> None:
    found = figures(world(), [Violation(LOST, "turn t1: still generating")])
    assert not found.kept
    assert found.broken[LOST] == 1


def test_only_streams_that_a_fault_met_are_measured() -> None:
    chats = [silent(1, first=0, silence=3.0), silent(2, first=20, silence=9.0)]
    found = figures(world(chats=chats), [], [fault(1)], BEGAN)
    assert (found.stall_p50, found.stall_p99, found.stall_max) == (3.0, 3.0, 3.0)
    assert found.ttft_p50 == 1.0


def test_where_nobody_was_ready_a_silence_is_no_stall() -> None:
    found = figures(world(chats=[silent(1, first=0, silence=5.0)]), [], [fault(1)], BEGAN, [(BEGAN + 1, BEGAN + 4)])
    assert (found.silence_p99, found.dark, found.stall_p99) == (5.0, 3.0, 2.0)


def test_turns_of_several_workers_are_counted() -> None:
    assert figures(world(turns=[turn(1, attempts=2), turn(2)]), []).taken_over == 1


def test_the_table_has_a_line_for_every_promise() -> None:
    text = table("chaos", figures(world(), []), {"kill": 2}, 4.0)
    assert all(f"  {kind} " in text for kind in figures(world(), []).broken)
    assert "2 x kill" in text
    assert "4 at p99: kept" in text


def test_what_was_logged_as_an_error_is_counted_by_process_and_event() -> None:
    lines = [f'{name}: {{"level":"error","event":"{event}"}}' for name, event in
             (("gateway.2", "request_failed"), ("gateway", "request_failed"), ("records", "away"))]  # fmt: skip
    assert logged_errors(lines).endswith("2 x gateway request_failed, 1 x records away")
    assert logged_errors([]).endswith("none")


def test_a_stall_beyond_the_limit_is_said() -> None:
    chats = [silent(1, first=0, silence=5.0)]
    assert "4 at p99: EXCEEDED" in table("chaos", figures(world(chats=chats), []), {}, 4.0)


def test_the_longest_silence_is_shown_with_the_fault_before_it() -> None:
    chats = [silent(1, first=0, silence=3.0), silent(2, first=20, silence=9.0)]
    first, second, *_ = details([], world(chats=chats), [fault(20.5)], BEGAN)
    assert first == "  silent 9.00 of 9.00 s from 20.0: chat 2 (turn t2): ['kill generation at 20.5']"
    assert second.endswith("(turn t1): []")
