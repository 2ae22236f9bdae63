"""What went wrong at a model server, as one of our faults.

The server's own words go to `details`, cut short; never into the message, which may be logged. Refused credentials
keep them out of `details` too: servers like to repeat the key there.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.faults import EngineFailed, EngineOverloaded, EngineRefused, EngineTimeout, Fault, ModelNotFound

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON they should be; broken UTF-8 is no DecodeError to it."""
_LONGEST = 500
_PATIENCE = {429, 503, 529}
_CREDENTIALS = {401, 403}
_SPENT = {"insufficient_quota", "billing_hard_limit_reached"}
_STATUS_OF_CODE = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "overloaded_error": 503,
    "server_overloaded": 503,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "content_filter": 400,
    "timeout": 408,
}


def from_response(provider: str, status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The fault that an answer with an error status stands for."""
    return _fault(provider, status, _error_in(body), retry_after(headers))


def from_event(provider: str, error: Any) -> Fault:
    """The fault that an error object inside a stream stands for: by its code, else by its type, else a failure."""
    said = error if isinstance(error, dict) else {"message": error}
    status = next(filter(None, (_status_of(said.get(name)) for name in ("code", "status", "type"))), 500)
    return _fault(provider, status, said, None)


def from_exception(provider: str, error: Exception) -> Fault:
    """The fault that a broken connection stands for."""
    # The transport names every connection error a ConnectTimeout; what really happened is its cause.
    if isinstance(error.__cause__ or error, TimeoutError):
        return EngineTimeout("The model server could not be reached in time.", details={"provider": provider})
    return EngineFailed("The connection to the model server failed.", details={"provider": provider})


def unreadable(provider: str) -> Fault:
    """What the server sent is not what was asked for."""
    return EngineFailed("The model server sent an answer that cannot be read.", details={"provider": provider})


def broke_off(provider: str) -> Fault:
    """The stream ended before the reply did."""
    return EngineFailed("The model server broke off in the middle of its reply.", details={"provider": provider})


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or a date). None if there is no sensible one."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def _status_of(code: Any) -> int | None:
    text = str(code)
    if text.isdecimal() and 400 <= int(text) < 600:
        return int(text)
    return _STATUS_OF_CODE.get(text)


def _fault(provider: str, status: int, said: dict[str, Any], wait: float | None) -> Fault:
    details: dict[str, Any] = {"provider": provider, "status": status}
    if status not in _CREDENTIALS:
        details |= {name: str(said[name])[:_LONGEST] for name in ("code", "message") if said.get(name)}
    kind, message = _verdict(status, said)
    return kind(message, retry_after=wait, details=details)


def _verdict(status: int, said: dict[str, Any]) -> tuple[type[Fault], str | None]:
    if status in _CREDENTIALS:
        return (
            EngineRefused,
            "The model server refused the engine's own credentials (not the caller's).",
        )
    if status == 402 or _SPENT & {str(said.get("code")), str(said.get("type"))}:
        return EngineRefused, "The engine's account at the model server is used up."
    if status in _PATIENCE:
        return EngineOverloaded, None
    if status == 408:
        return EngineTimeout, None
    if status >= 500 or status < 400:
        return EngineFailed, f"The model server failed with status {status}."
    if status == 404 and _names_a_model(said):
        return ModelNotFound, "The model server has no such model."
    return EngineRefused, f"The model server refused the request with status {status}."


def _names_a_model(said: dict[str, Any]) -> bool:
    """Whether a 404 speaks of the model rather than of a wrong base_url."""
    return "model" in f"{said.get('code')} {said.get('message')}".lower()


def _error_in(body: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except UNREADABLE:
        return {}
    error = said.get("error", said) if isinstance(said, dict) else said
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}
