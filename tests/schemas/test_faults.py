"""Faults: each code with the status and the retry advice that the API promises."""

from __future__ import annotations

import pytest

from schemas import codec
from schemas.faults import FAULTS, EngineInternal, Fault, FaultRecord, QuotaExceeded, error_type, fault_from

PROMISED = {
    "AUTH_MISSING": 401,
    "AUTH_INVALID": 401,
    "AUTH_EXPIRED": 401,
    "AUTH_FORBIDDEN": 403,
    "VALIDATION_JSON": 400,
    "VALIDATION_VALUE": 400,
    "VALIDATION_METHOD": 405,
    "VALIDATION_MEDIA_TYPE": 415,
    "VALIDATION_BODY_TOO_LARGE": 413,
    "VALIDATION_IDEMPOTENCY_MISMATCH": 422,
    "RESOURCE_NOT_FOUND": 404,
    "RESOURCE_MODEL_NOT_FOUND": 404,
    "RESOURCE_SESSION_BUSY": 409,
    "RESOURCE_RATE_LIMITED": 429,
    "RESOURCE_QUOTA_EXCEEDED": 429,
    "ENGINE_OVERLOADED": 503,
    "ENGINE_TIMEOUT": 504,
    "ENGINE_FAILED": 502,
    "ENGINE_REFUSED": 502,
    "ENGINE_INTERNAL": 500,
    "STORAGE_UNAVAILABLE": 503,
}
"""The public table of codes. Grow it; a code that clients have seen keeps its status."""
WITH_RETRY_AFTER = {"ENGINE_OVERLOADED", "STORAGE_UNAVAILABLE", "RESOURCE_RATE_LIMITED"}
NEVER_AGAIN = {"RESOURCE_SESSION_BUSY", "RESOURCE_QUOTA_EXCEEDED"}
EVERY_FAULT = pytest.mark.parametrize("kind", FAULTS.values(), ids=FAULTS.keys())


def test_there_is_a_fault_for_each_promised_code_and_no_other() -> None:
    assert {code: kind.status for code, kind in FAULTS.items()} == PROMISED


def test_every_fault_in_the_house_is_in_the_table() -> None:
    assert set(Fault.__subclasses__()) == set(FAULTS.values())


def test_those_that_pass_by_themselves_say_when_to_come_back() -> None:
    assert {code for code, kind in FAULTS.items() if kind.retry_after} == WITH_RETRY_AFTER


def test_those_that_waiting_does_not_help_are_not_tried_again_by_sdks() -> None:
    assert {code for code, kind in FAULTS.items() if kind.should_retry is False} >= NEVER_AGAIN
    assert not any(kind.retryable for kind in FAULTS.values() if kind.should_retry is False)


def test_a_spent_quota_has_openai_s_own_type() -> None:
    assert QuotaExceeded.kind == "insufficient_quota"


@EVERY_FAULT
def test_a_fault_has_a_meaning_and_a_sentence(kind: type[Fault]) -> None:
    assert kind.__doc__
    assert kind().record.message.endswith(".")


@EVERY_FAULT
def test_a_fault_survives_the_wire(kind: type[Fault]) -> None:
    record = kind("No.", param="a.b", retry_after=2.5, details={"limit": 3}).record
    back = fault_from(codec.decode(codec.encode(record), FaultRecord))
    assert type(back) is kind
    assert back.record == record
    assert str(back) == "No."


@EVERY_FAULT
def test_a_fault_says_its_own_retry_after_unless_told_another(kind: type[Fault]) -> None:
    assert (kind().record.retry_after, kind(retry_after=9).record.retry_after) == (kind.retry_after, 9)


def test_a_code_of_a_newer_process_is_an_internal_error_with_its_words() -> None:
    fault = fault_from(FaultRecord(code="TEAPOT", message="Short and stout."))
    assert type(fault) is EngineInternal
    assert str(fault) == "Short and stout."


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (409, "invalid_request_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (504, "server_error"),
    ],
)
def test_a_status_has_openai_s_type(status: int, type: str) -> None:
    assert error_type(status) == type
