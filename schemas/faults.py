"""Faults: what can go wrong, each with its code, its HTTP status and whether waiting helps."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class FaultRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A fault on the wire, between processes and at rest. `message` never holds a user's words or a secret."""

    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    """Seconds the caller should wait before trying again."""
    details: dict[str, Any] | None = None


class Fault(Exception):
    """Something a caller can be told. Raise the kind that fits; one place turns it into the error body."""

    code: ClassVar[str] = "ENGINE_INTERNAL"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without a change."""
    retry_after: ClassVar[float | None] = None
    should_retry: bool | None = None
    """What `x-should-retry` tells OpenAI's SDKs; None leaves it to them."""
    kind: ClassVar[str | None] = None
    """OpenAI's `type` where the status does not decide it."""
    summary: ClassVar[str] = "Something went wrong inside the engine."

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message or self.summary)
        self.record = FaultRecord(
            code=self.code,
            message=message or self.summary,
            param=param,
            retry_after=self.retry_after if retry_after is None else retry_after,
            details=details,
        )


class AuthMissing(Fault):
    """No key was sent."""

    code, status = "AUTH_MISSING", 401
    summary = "No API key was sent. Send it as 'Authorization: Bearer <key>'."


class AuthInvalid(Fault):
    """The key is unknown, revoked or malformed."""

    code, status = "AUTH_INVALID", 401
    summary = "The API key is not valid."


class AuthExpired(Fault):
    """The key or token was valid once."""

    code, status = "AUTH_EXPIRED", 401
    summary = "The API key has expired."


class AuthForbidden(Fault):
    """The caller is known and may not do this."""

    code, status = "AUTH_FORBIDDEN", 403
    summary = "This caller may not do that."


class NotJson(Fault):
    """The body is not JSON."""

    code, status = "VALIDATION_JSON", 400
    summary = "The request body is not valid JSON."


class InvalidValue(Fault):
    """A value has the wrong type or is out of range; `param` is its path."""

    code, status = "VALIDATION_VALUE", 400
    summary = "A value in the request is not valid."


class MethodNotAllowed(Fault):
    """The path exists, the method does not."""

    code, status = "VALIDATION_METHOD", 405
    summary = "This method is not allowed here."


class WrongMediaType(Fault):
    """The body has a media type this endpoint does not read."""

    code, status = "VALIDATION_MEDIA_TYPE", 415
    summary = "Send the body as application/json."


class BodyTooLarge(Fault):
    """The body is above the limit."""

    code, status = "VALIDATION_BODY_TOO_LARGE", 413
    summary = "The request body is too large."


class IdempotencyMismatch(Fault):
    """The Idempotency-Key was used before with another body."""

    code, status, should_retry = "VALIDATION_IDEMPOTENCY_MISMATCH", 422, False
    summary = "This Idempotency-Key was used before with another body."


class NotFound(Fault):
    """The thing does not exist, or belongs to someone else."""

    code, status = "RESOURCE_NOT_FOUND", 404
    summary = "There is no such resource."


class ModelNotFound(Fault):
    """No model or personality of that name is served."""

    code, status = "RESOURCE_MODEL_NOT_FOUND", 404
    summary = "There is no such model."


class SessionBusy(Fault):
    """The session has a running turn and the request said `on_busy: reject`."""

    code, status, should_retry = "RESOURCE_SESSION_BUSY", 409, False
    summary = "The session is busy with another turn."


class RateLimited(Fault):
    """The caller sends too fast."""

    code, status, retryable, retry_after = "RESOURCE_RATE_LIMITED", 429, True, 1.0
    summary = "Too many requests."


class QuotaExceeded(Fault):
    """The caller's budget is spent."""

    code, status, should_retry = "RESOURCE_QUOTA_EXCEEDED", 429, False
    kind = "insufficient_quota"
    summary = "The quota is used up."


class EngineOverloaded(Fault):
    """The model server, or the bus, asked for patience."""

    code, status, retryable, retry_after = "ENGINE_OVERLOADED", 503, True, 1.0
    summary = "The engine is overloaded. Try again shortly."


class EngineTimeout(Fault):
    """The model server did not answer, or stopped answering, within its time."""

    code, status, retryable = "ENGINE_TIMEOUT", 504, True
    summary = "The model did not answer in time."


class EngineFailed(Fault):
    """The model server answered with an error of its own or broke off."""

    code, status, retryable = "ENGINE_FAILED", 502, True
    summary = "The model server failed."


class EngineRefused(Fault):
    """The model server understood the request and refused it (400, 401, 403, 404, 422)."""

    code, status, should_retry = "ENGINE_REFUSED", 502, False
    summary = "The model server refused the request."


class EngineInternal(Fault):
    """A mistake of ours."""

    code, status = "ENGINE_INTERNAL", 500


class StorageUnavailable(Fault):
    """The database, or the worker that owns it, does not answer."""

    code, status, retryable, retry_after = "STORAGE_UNAVAILABLE", 503, True, 2.0
    summary = "Storage is not available right now. Try again shortly."


FAULTS: dict[str, type[Fault]] = {
    kind.code: kind
    for kind in (
        AuthMissing, AuthInvalid, AuthExpired, AuthForbidden, NotJson, InvalidValue, MethodNotAllowed,
        WrongMediaType, BodyTooLarge, IdempotencyMismatch, NotFound, ModelNotFound, SessionBusy, RateLimited,
        QuotaExceeded, EngineOverloaded, EngineTimeout, EngineFailed, EngineRefused, EngineInternal,
        StorageUnavailable,
    )
}  # fmt: skip


def fault_from(record: FaultRecord) -> Fault:
    """The fault that a record stands for. A code we do not know (a newer process sent it) is an internal error."""
    kind = FAULTS.get(record.code, EngineInternal)
    return kind(record.message, param=record.param, retry_after=record.retry_after, details=record.details)


TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_type(status: int) -> str:
    """OpenAI's error `type` for a status."""
    if status >= 500:
        return "server_error"
    return TYPES.get(status, "invalid_request_error")
