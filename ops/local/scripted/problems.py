"""A refusal as OpenAI words it: status, headers and the error body."""

from collections.abc import Mapping

import msgspec

_TYPES = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}


class Problem(Exception):
    """The request is answered with `status` and an OpenAI error body; `param` names the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The error body as JSON."""
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


def model_not_found() -> Problem:
    """The model does not exist here."""
    return Problem(404, "The model does not exist or you do not have access to it.", code="model_not_found")


def wrong_key() -> Problem:
    """The API key is missing or not the one expected."""
    return Problem(401, "Incorrect API key provided.", code="invalid_api_key")


def scripted_failure(status: int, retry_after_ms: int) -> Problem:
    """The failure that a request's controls asked for."""
    codes = {400: "scripted_failure", 401: "invalid_api_key", 429: "rate_limit_exceeded"}
    headers = {}
    if status in (429, 503):
        headers = {
            "retry-after": str(-(-retry_after_ms // 1000)),
            "retry-after-ms": str(retry_after_ms),
        }
    return Problem(status, f"Scripted failure {status}.", code=codes.get(status), headers=headers)
