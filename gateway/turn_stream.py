"""`GET /v1/turns/{id}/stream`: a turn's reply from its beginning, or from behind the last event its reader has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from litestar import get
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.types import ASGIApp
from structlog.contextvars import bind_contextvars

from gateway import problems, sse
from gateway.chat import about
from gateway.joining import Shown
from gateway.reply_reader import ReplyReader
from gateway.services import Asked, services_of
from gateway.sessions import existing_id
from gateway.streamed import StreamedAnswer, Watch
from schemas.faults import InvalidValue, fault_from
from schemas.replies import Failed, Finished

LastEventId = Annotated[
    str | None, HeaderParameter(name="last-event-id", description="The `id` of the last event that was received.")
]
StartingAfter = Annotated[
    str | None,
    QueryParameter(
        name="starting_after", description="The same, for clients that cannot set headers. The header wins."
    ),
]
ID_DIGITS = 15
CATCH_UP = 2.0
"""Seconds in which all that there is of a reply must have been read, for one to say that a client has seen more."""


@get("/turns/{turn_id:str}/stream", summary="A turn's reply, as a stream")
async def stream_turn(
    request: Asked, turn_id: FromPath[str], last_event_id: LastEventId = None, starting_after: StartingAfter = None
) -> ASGIApp:
    """The chunks of the turn's chat completion, with the same ids, whether the reply is still to come, under way, or
    ended long ago. Always with usage; ends as the first reader's stream did."""
    services = services_of(request)
    after = seen("Last-Event-ID", last_event_id) or seen("starting_after", starting_after)
    reader, stored, events = await services.late_reader(existing_id(turn_id), request.user.user_id)
    bind_contextvars(turn_id=reader.turn_id, session_id=stored.session_id)
    watch = Watch(request.receive, reader)
    chunks = sse.ChunkStream(
        turn_id=reader.turn_id,
        model=stored.model,
        created=stored.created,
        cozy=about(reader.turn_id, stored.session_id, stored.personality_id, stored.ignored_messages),
        include_usage=True,
        after=after,
    )
    try:
        events = await from_where(reader, events, after, services.config.api.header_wait)
        if not after and events and isinstance(events[0], Failed):
            # As who asked for it was told, where nothing was said: by a status. Reading again changes nothing.
            fault = fault_from(events[0].fault)
            fault.should_retry = fault.should_retry if events[0].state == "unread" else False
            raise fault
    except BaseException:
        watch.end()
        await reader.close()
        raise
    return StreamedAnswer(
        reader, chunks, events, watch, api=services.config.api, request_id=problems.request_id_of(request.scope)
    )


async def from_where(reader: ReplyReader, events: Sequence[Shown], after: int, patience: float) -> Sequence[Shown]:
    """The first events for a client that has seen up to the id `after`, waited for up to `patience` seconds.

    Where all there is ends before that, it has seen what was lost since, and is told so.
    """
    clock = asyncio.get_running_loop().time
    began, found = clock(), list(events)
    while not reader.closed and not (found and isinstance(found[-1], Finished | Failed)):
        behind = after - 1 > (reader.all_there_is or 0)
        left = began + (max(patience, CATCH_UP) if behind else patience) - clock()
        if left <= 0 or (found and not behind):
            break
        found += await reader.read(left)
    last = reader.all_there_is
    if found and isinstance(found[-1], Finished):
        last = found[-1].index + len(found[-1].finish_reasons) + 1  # its last id is that of the usage
    elif found and isinstance(found[-1], Failed):
        return found
    return [reader.torn()] if last is not None and after - 1 > last else found


def seen(name: str, value: str | None) -> int:
    """The number of the last event that a client has; 0 where it has none. Raises InvalidValue."""
    if not value:
        return 0
    if not (value.isascii() and value.isdigit() and len(value) <= ID_DIGITS):
        raise InvalidValue("An event's id is a whole number from 1.", param=name)
    return int(value)
