"""`/v1/turns`: one message and its reply, as it stands, and its stop."""

from __future__ import annotations

import msgspec
from litestar import get, post
from litestar.params import FromPath

from gateway.services import Asked, services_of
from gateway.sessions import existing_id
from schemas.records import GetTurn, StopTurn, Turn


@get("/turns/{turn_id:str}", summary="One turn")
async def get_turn(request: Asked, turn_id: FromPath[str]) -> Turn:
    """State, timings and usage of a turn of the caller's."""
    services = services_of(request)
    query = GetTurn(user_id=request.user.user_id, turn_id=existing_id(turn_id))
    turn = await services.records.ask(query, Turn)
    return turn if services.config.api.error_details else without_details(turn)


@post("/turns/{turn_id:str}/cancel", status_code=202, summary="Stop a turn")
async def cancel_turn(request: Asked, turn_id: FromPath[str]) -> Turn:
    """Stop a turn of the caller's, wherever it stands: no tool starts afterwards, and what was said is kept.

    Answered once the stop is stored, with the turn as it then stands; its reply ends with `cozy.stopped` a moment
    later. A turn that has ended stays as it is, so asking again changes nothing.
    """
    services = services_of(request)
    query = StopTurn(user_id=request.user.user_id, turn_id=existing_id(turn_id))
    turn = await services.records.ask(query, Turn)
    return turn if services.config.api.error_details else without_details(turn)


def without_details(turn: Turn) -> Turn:
    """The turn as a deployment shows it that keeps the details of errors to itself."""
    if turn.error is None or turn.error.details is None:
        return turn
    return msgspec.structs.replace(turn, error=msgspec.structs.replace(turn.error, details=None))
