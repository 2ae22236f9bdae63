"""Every way a request can go wrong has the one body, the right status and the headers a client obeys."""

import json

import pytest
from litestar.exceptions import HTTPException, ValidationException

from gateway import problems
from schemas import faults
from schemas.faults import FAULTS, Fault


def told(fault: Fault, details: bool = True) -> dict[str, object]:
    body: dict[str, dict[str, object]] = json.loads(problems.error_body(fault, "r-1", details))
    return body["error"]


def test_a_body_has_every_key_that_clients_look_for() -> None:
    error = told(faults.InvalidValue("Too long.", param="messages[0].content"))
    assert error == {
        "message": "Too long.",
        "type": "invalid_request_error",
        "param": "messages[0].content",
        "code": "VALIDATION_VALUE",
        "request_id": "r-1",
    }


def test_details_are_told_only_where_the_deployment_shows_them() -> None:
    fault = faults.BodyTooLarge(details={"limit_bytes": 5})
    assert told(fault)["details"] == {"limit_bytes": 5}
    assert "details" not in told(fault, details=False)


@pytest.mark.parametrize(
    ("fault", "status", "type_"),
    [
        (faults.AuthMissing(), 401, "authentication_error"),
        (faults.AuthForbidden(), 403, "permission_error"),
        (faults.NotFound(), 404, "invalid_request_error"),
        (faults.SessionBusy(), 409, "invalid_request_error"),
        (faults.IdempotencyMismatch(), 422, "invalid_request_error"),
        (faults.RateLimited(), 429, "rate_limit_error"),
        (faults.QuotaExceeded(), 429, "insufficient_quota"),
        (faults.StorageUnavailable(), 503, "server_error"),
    ],
)
def test_the_type_follows_openai(fault: Fault, status: int, type_: str) -> None:
    assert problems.response(fault, None, False).status_code == status
    assert told(fault)["type"] == type_


def test_what_may_come_back_says_when() -> None:
    assert problems.headers_of(faults.StorageUnavailable(retry_after=0.2))["retry-after"] == "1"
    assert problems.headers_of(faults.RateLimited(retry_after=2.1))["retry-after"] == "3"
    assert "retry-after" not in problems.headers_of(faults.NotFound())


def test_what_must_not_come_back_says_so() -> None:
    assert problems.headers_of(faults.SessionBusy())["x-should-retry"] == "false"
    assert "x-should-retry" not in problems.headers_of(faults.StorageUnavailable())


def test_a_missing_key_is_answered_with_the_scheme_to_use() -> None:
    assert problems.headers_of(faults.AuthMissing())["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("kind", FAULTS.values())
def test_a_fault_stands_for_itself(kind: type[Fault]) -> None:
    fault = kind()
    assert problems.fault_from(fault) is fault


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 429])
def test_a_refusal_of_the_framework_keeps_its_status_and_loses_its_words(status: int) -> None:
    fault = problems.fault_from(HTTPException(detail="somebody's words", status_code=status))
    assert fault.status == status
    assert "words" not in fault.record.message


def test_any_other_exception_is_ours_and_says_nothing_of_itself() -> None:
    fault = problems.fault_from(ValueError("somebody's words"))
    assert (fault.status, fault.code) == (500, "ENGINE_INTERNAL")
    assert "words" not in fault.record.message


def test_a_wrong_parameter_is_named_without_its_value() -> None:
    error = ValidationException(extra=[{"message": "Invalid value 'words'", "key": "limit", "source": "query"}])
    record = problems.fault_from(error).record
    assert (record.message, record.param) == ("Invalid value", "limit")
