"""What a log line says of an exception."""

from __future__ import annotations

import json

import pytest

from ops.runtime.failures import describe
from ops.runtime.settings import ConfigError
from schemas.faults import Fault, SessionBusy

CANARY = "canary-4711"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_the_message_of_a_library_s_exception_is_never_told() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(CANARY)
    said = describe(caught.value)
    assert said["type"] == "json.decoder.JSONDecodeError"
    assert CANARY not in str(said)


def test_only_our_own_frames_are_told() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        said = describe(error)
    [place] = said["at"]
    assert place.startswith("tests/ops/runtime/test_failures.py:")
    assert place.endswith(":test_only_our_own_frames_are_told")


@pytest.mark.parametrize("error", [SessionBusy(), ConfigError("api.yaml: port: missing")])
def test_our_own_words_are_told(error: Fault | ConfigError) -> None:
    assert describe(error)["message"] == str(error)


def test_a_cause_is_told_and_its_message_is_not() -> None:
    said = describe(raised(RuntimeError(CANARY), ValueError(CANARY)))
    assert (said["type"], said["cause"]) == ("RuntimeError", {"type": "ValueError"})


def test_the_members_of_a_group_are_told() -> None:
    said = describe(ExceptionGroup(CANARY, [ValueError(CANARY), KeyError(CANARY)]))
    assert [member["type"] for member in said["members"]] == ["ValueError", "KeyError"]
    assert CANARY not in str(said)


def test_a_code_that_a_library_attached_is_told() -> None:
    assert describe(OSError(111, CANARY))["errno"] == 111


def test_a_code_that_is_a_sentence_is_not_told() -> None:
    error = RuntimeError()
    error.sqlstate = f"{CANARY} and more"  # type: ignore[attr-defined]
    assert "sqlstate" not in describe(error)


def test_a_chain_without_end_ends() -> None:
    error: BaseException = ValueError()
    for _ in range(50):
        error = raised(RuntimeError(), error)
    assert str(describe(error)).count("RuntimeError") == 5
