"""The edge: what every request has whatever it asks for: an id, a line in the log, a count, safe headers, an end."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from gateway.problems import CLIENT_GONE
from ops.runtime import metrics
from schemas.ids import new_id

log = structlog.get_logger()

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
NO_ROUTE = "(none)"
PROBES = frozenset({"/livez", "/readyz"})
"""Asked every few seconds by machines: logged at debug."""
SAFE_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
UNLESS_SAID: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""For answers that say nothing else of these: nothing is kept, and nothing in it may run, load or be framed."""


class Edge:
    """ASGI middleware around the whole app. Whatever fails within, the request ends, is logged and is counted."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(scope)
        clear_contextvars()  # a pipelined request is born in the context of the one before it
        bind_contextvars(request_id=request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        status = CLIENT_GONE

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _headers(list(message["headers"]), request_id)
            await send(message)

        try:
            await self.app(scope, receive, tell)
        except asyncio.CancelledError:
            log.warning("request_cut_off")  # the grace of a stopping process is over; the server drops the connection
        except Exception as error:
            # The answer had begun: there is no way left to say so but to break off, which the server does.
            log.error("response_broken", exc_info=error)
        finally:
            _note(cast(dict[str, Any], scope), status, time.perf_counter() - began)


def _request_id(scope: Scope) -> str:
    """The caller's own id where it is sane, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if _SANE_ID.fullmatch(value) else new_id()
    return new_id()


def _headers(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    said = {name.lower() for name, _ in headers}
    headers += SAFE_HEADERS
    headers += [header for header in UNLESS_SAID if header[0] not in said]
    headers.append((b"x-request-id", request_id.encode()))
    return headers


def _note(scope: dict[str, Any], status: int, seconds: float) -> None:
    """The request's one line in the log, and its count."""
    route = scope.get("path_template") or NO_ROUTE
    method = scope["method"]
    metrics.REQUESTS.labels(method, route, status).inc()
    metrics.REQUEST_SECONDS.labels(route).observe(seconds)
    say = log.debug if route in PROBES else log.info
    say("request_served", method=method, route=route, status=status, latency_ms=round(seconds * 1000, 3))
