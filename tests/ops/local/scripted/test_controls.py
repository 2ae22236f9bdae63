"""Controls: where they come from, which one wins, and what a wrong one says."""

import pytest

from ops.local.scripted.controls import Controls, Failures, from_environment, read, without_marks
from ops.local.scripted.problems import Problem


def test_headers_win_over_marks_and_marks_over_the_environment() -> None:
    defaults = {"gap-ms": "1", "tokens": "1", "ttft-ms": "1"}
    found = read({"x-scripted-gap-ms": "3"}, "hi [[gap=2 tokens=2]]", defaults)
    assert (found.gap_ms, found.tokens, found.ttft_ms) == (3, 2, 1)


def test_nothing_given_is_the_default() -> None:
    assert read({"content-type": "application/json"}, "hi", {}) == Controls()


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        ("[[gap=20 tokens=200]]", Controls(gap_ms=20, tokens=200)),
        ("[[ttft-ms=5]] and [[fail=cut fail_after=2]]", Controls(ttft_ms=5, fail="cut", fail_after=2)),
        ("""[[call='clock {"a": [[1]]}']]""", Controls(call='clock {"a": [[1]]}')),
    ],
)
def test_marks_are_read(mark: str, expected: Controls) -> None:
    assert read({}, f"before {mark} after", {}) == expected


@pytest.mark.parametrize("text", ["[[a link]]", "[[x=1]]", "[[gap=1 x=2]]", "[[", "[[gap=]]"])
def test_what_is_not_a_mark_is_left_as_text(text: str) -> None:
    assert read({}, text, {}) == Controls()
    assert without_marks(text) == text


def test_marks_are_taken_out_of_the_text() -> None:
    assert without_marks("[[gap=1]] hello [[tokens=2]]") == "hello"


@pytest.mark.parametrize(
    ("header", "value", "param"),
    [
        ("x-scripted-gap-ms", "soon", "x-scripted-gap-ms"),
        ("x-scripted-tokens", "-1", "x-scripted-tokens"),
        ("x-scripted-tokens", "100001", "x-scripted-tokens"),
        ("x-scripted-fail", "302", "x-scripted-fail"),
        ("x-scripted-gap-ms", "inf", "x-scripted-gap-ms"),
        ("x-scripted-unknown", "1", "x-scripted"),
    ],
)
def test_a_wrong_header_is_named(header: str, value: str, param: str) -> None:
    with pytest.raises(Problem) as problem:
        read({header: value}, "", {})
    assert (problem.value.status, problem.value.param) == (400, param)


def test_the_environment_is_read_and_foreign_variables_are_left_alone() -> None:
    assert from_environment({"SCRIPTED_GAP_MS": "5", "SCRIPTED_URL": "x", "PATH": "y"}) == {"gap-ms": "5"}


def test_failures_end_after_their_times_and_are_counted_by_key_or_by_message() -> None:
    failures = Failures()
    wished = Controls(fail="500", fail_times=1)
    assert [failures.judge(wished, text).fail for text in ("a", "b", "a")] == ["500", "500", "none"]
    keyed = Controls(fail="500", fail_times=2, fail_key="k")
    assert [failures.judge(keyed, text).fail for text in ("a", "b", "c")] == ["500", "500", "none"]
    failures.clear()
    assert failures.judge(wished, "a").fail == "500"
