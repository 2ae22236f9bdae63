"""What a model server's errors become."""

from __future__ import annotations

from email.utils import formatdate
from time import time
from typing import Any

import msgspec
import pytest

from schemas.faults import EngineFailed, EngineOverloaded, EngineRefused, EngineTimeout, Fault, ModelNotFound
from workers.engines.ai import errors


def fault_of(status: int, error: Any = None, **headers: str) -> Fault:
    return errors.from_response("acme", status, headers, msgspec.json.encode({"error": error}))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, EngineRefused),
        (401, EngineRefused),
        (402, EngineRefused),
        (403, EngineRefused),
        (404, EngineRefused),
        (408, EngineTimeout),
        (413, EngineRefused),
        (422, EngineRefused),
        (429, EngineOverloaded),
        (500, EngineFailed),
        (502, EngineFailed),
        (503, EngineOverloaded),
        (302, EngineFailed),
    ],
)
def test_each_status_has_its_fault(status: int, kind: type[Fault]) -> None:
    assert type(fault_of(status)) is kind


@pytest.mark.parametrize(
    "error", [{"code": "model_not_found"}, {"message": "model 'x' not found"}, "The model does not exist"]
)
def test_a_404_that_names_the_model_says_so(error: Any) -> None:
    assert type(fault_of(404, error)) is ModelNotFound


def test_a_spent_account_is_not_worth_waiting_for() -> None:
    fault = fault_of(429, {"code": "insufficient_quota"})
    assert type(fault) is EngineRefused


def test_what_the_server_said_is_in_the_details_only() -> None:
    fault = fault_of(400, {"message": "You wrote: secret", "code": "bad"})
    assert "secret" not in str(fault)
    assert fault.record.details == {"provider": "acme", "status": 400, "code": "bad", "message": "You wrote: secret"}


def test_a_long_message_is_cut() -> None:
    details = fault_of(400, {"message": "x" * 10_000}).record.details
    assert details is not None
    assert len(details["message"]) == 500


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_the_engines_and_are_not_repeated(status: int) -> None:
    fault = fault_of(status, {"message": "Incorrect key sk-12345"})
    assert "engine's own credentials" in str(fault)
    assert "sk-12345" not in str(fault.record)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"error": 5}', b'{"error": {"code": []}}'])
def test_a_body_of_any_shape_is_survived(body: bytes) -> None:
    assert type(errors.from_response("acme", 500, {}, body)) is EngineFailed


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert errors.retry_after(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    seconds = errors.retry_after({"retry-after": formatdate(time() + 60, usegmt=True)})
    assert seconds == pytest.approx(60, abs=2)


def test_the_wait_a_server_asks_for_is_passed_on() -> None:
    assert fault_of(429, **{"retry-after": "7"}).record.retry_after == 7.0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429}, EngineOverloaded),
        ({"code": "503"}, EngineOverloaded),
        ({"code": "rate_limit_exceeded"}, EngineOverloaded),
        ({"type": "overloaded_error"}, EngineOverloaded),
        ({"code": "context_length_exceeded"}, EngineRefused),
        ({"code": "invalid_api_key", "message": "sk-1"}, EngineRefused),
        ({"code": None, "type": "server_error"}, EngineFailed),
        ({"message": "boom"}, EngineFailed),
        ("boom", EngineFailed),
    ],
)
def test_an_error_inside_a_stream_goes_by_its_code(error: Any, kind: type[Fault]) -> None:
    assert type(errors.from_event("acme", error)) is kind
