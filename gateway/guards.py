"""Guards: what must hold before a handler is called."""

from __future__ import annotations

from typing import Any, cast

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from structlog.contextvars import bind_contextvars

from gateway.callers import hash_of, key_of
from gateway.services import services_of
from schemas.faults import AuthForbidden
from schemas.records import Caller


async def known_caller(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Guard: whoever comes in has a valid key. `request.user` is its `Caller`, and every log line has the user's id."""
    headers = cast(list[tuple[bytes, bytes]], connection.scope["headers"])
    caller = await services_of(connection).callers.require(hash_of(key_of(headers)))
    connection.scope["user"] = caller
    bind_contextvars(user_id=caller.user_id)


def only_admin(connection: ASGIConnection[Any, Caller, Any, Any], _handler: BaseRouteHandler) -> None:
    """Guard, behind `known_caller`: for admins only."""
    if connection.user.role != "admin":
        raise AuthForbidden()
