"""Problems: the one place that turns whatever went wrong into the one error body (api.md, "Errors")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Scope

from schemas.faults import (
    AuthForbidden,
    AuthInvalid,
    BodyTooLarge,
    EngineInternal,
    Fault,
    InvalidValue,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    WrongMediaType,
    error_type,
)

log = structlog.get_logger()

JSON = "application/json"
BY_STATUS: dict[int, Fault] = {
    400: InvalidValue("The request is not valid."),
    401: AuthInvalid(),
    403: AuthForbidden(),
    404: NotFound("There is nothing at this path."),
    405: MethodNotAllowed(),
    413: BodyTooLarge(),
    415: WrongMediaType(),
    429: RateLimited(),
}
"""What the framework's own refusals become. Their texts repeat the request, so ours are said instead."""
CHALLENGE = "Bearer"
CLIENT_GONE = 499
"""The status in the log for a client that left before it was answered. Nobody is ever sent it."""
_encode = msgspec.json.Encoder().encode


class ClientGone(Exception):
    """The client left before its request was whole: there is nobody to answer."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. Every key but `details` is always there."""

    message: str
    """For people. Never holds a word of the request."""
    type: str
    """OpenAI's kind of error."""
    param: str | None
    """Path of the value at fault, as `messages[0].role`."""
    code: str
    """For programs: one of the codes of the error table."""
    request_id: str | None
    """The same as the header `x-request-id`."""
    details: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """More, where the deployment shows it."""


class ErrorBody(msgspec.Struct, frozen=True):
    """Every answer that is not a success."""

    error: Problem


def error_body(fault: Fault, request_id: str | None, details: bool) -> bytes:
    """The error body of a fault, as JSON; with its details only where `details` says so. For SSE's error event too."""
    record = fault.record
    problem = Problem(
        message=record.message,
        type=fault.kind or error_type(fault.status),
        param=record.param,
        code=record.code,
        request_id=request_id,
        details=record.details if details and record.details is not None else msgspec.UNSET,
    )
    return _encode(ErrorBody(problem))


def headers_of(fault: Fault) -> dict[str, str]:
    """The headers that tell a client what to do next: when to come back, or never, or with a key."""
    headers: dict[str, str] = {}
    if fault.record.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(fault.record.retry_after)))
    if fault.should_retry is not None:
        headers["x-should-retry"] = "true" if fault.should_retry else "false"
    if fault.status == 401:
        headers["www-authenticate"] = CHALLENGE
    return headers


def response(
    fault: Fault, request_id: str | None, details: bool, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """The whole answer to a request that ends in this fault."""
    return Response(
        error_body(fault, request_id, details),
        status_code=fault.status,
        media_type=JSON,
        headers={**headers_of(fault), **(headers or {})},
    )


def handle(request: Request[Any, Any, State], error: Exception) -> Response[bytes]:
    """The app's only exception handler, for whatever is raised before an answer has begun."""
    if isinstance(error, ClientGone):
        return Response(b"", status_code=CLIENT_GONE)
    own = error.headers if isinstance(error, HTTPException) else None
    details = bool(request.app.state.get("error_details"))
    return response(fault_from(error), request_id_of(request.scope), details, own)


def request_id_of(scope: Scope) -> str | None:
    """The id that the edge gave this request; None outside of it."""
    state: dict[str, Any] = scope.get("state") or {}
    return state.get("request_id")


def fault_from(error: Exception) -> Fault:
    """The fault that stands for any exception.

    What is neither a fault nor a refusal of the framework's is a mistake of ours, and logged: its kind and place, and
    nothing of its text, which may hold a user's words.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, ValidationException):
        return _from_parameters(error)
    if isinstance(error, HTTPException) and error.status_code in BY_STATUS:
        return BY_STATUS[error.status_code]
    log.error("request_failed", exc_info=error)
    return EngineInternal()


def _from_parameters(error: ValidationException) -> Fault:
    """The first of the framework's complaints about path and query parameters."""
    first = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    return InvalidValue(clean(str(first.get("message", ""))) or None, param=first.get("key"))


def clean(complaint: str) -> str:
    """msgspec's complaint without the value it repeats."""
    head, quote, _ = complaint.partition(" '")
    return head if quote and head.startswith("Invalid") else complaint
