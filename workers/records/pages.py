"""Lists a page at a time: what a cursor says, and when there is more."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime

from schemas.faults import InvalidValue
from schemas.ids import is_id
from schemas.records import Page, Session
from workers.storage.sessions import BEFORE_MESSAGES, BEFORE_SESSIONS, MessageRow, SessionPlace

MAX_LIMIT = 100
MAX_BYTES = 4_000_000
"""Of one page of messages. An answer travels in one message of the bus, whose limit is 8 MB."""
MAX_ORD = (1 << 63) - 1
SEPARATOR = ","


def page_limit(limit: int) -> int:
    """The asked limit within what a page may hold."""
    return min(max(limit, 1), MAX_LIMIT)


def session_page(found: Sequence[Session], limit: int) -> Page:
    """A page of sessions, from up to `limit` + 1 of them."""
    shown = list(found[:limit])
    if len(found) <= limit:
        return Page(data=shown)
    return Page(data=shown, has_more=True, next_cursor=_cursor(shown[-1].created_at, shown[-1].id))


def message_page(found: Sequence[MessageRow], limit: int) -> Page:
    """A page of messages, from up to `limit` + 1 of them; there may be fewer because of their size."""
    shown = found[:limit]
    messages = [row.message for row in shown]
    if not shown or shown[0].found <= len(shown):
        return Page(data=messages)
    return Page(data=messages, has_more=True, next_cursor=_cursor(str(shown[-1].ord)))


def session_place(cursor: str | None) -> SessionPlace:
    """Where a list of sessions goes on. Raises InvalidValue for a cursor that we did not make."""
    if cursor is None:
        return BEFORE_SESSIONS
    created_at, _, session_id = _text(cursor).partition(SEPARATOR)
    try:
        moment = datetime.fromisoformat(created_at)
    except ValueError:
        raise _foreign() from None
    if moment.tzinfo is None or not is_id(session_id):
        raise _foreign()
    return SessionPlace(created_at, session_id)


def message_place(cursor: str | None) -> int:
    """Where a list of messages goes on. Raises InvalidValue for a cursor that we did not make."""
    if cursor is None:
        return BEFORE_MESSAGES
    text = _text(cursor)
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_ORD)) or int(text) > MAX_ORD:
        raise _foreign()
    return int(text)


def _cursor(*place: str) -> str:
    return base64.urlsafe_b64encode(SEPARATOR.join(place).encode()).rstrip(b"=").decode()


def _text(cursor: str) -> str:
    padding = "=" * (-len(cursor) % 4)
    try:
        return base64.b64decode(cursor + padding, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise _foreign() from None


def _foreign() -> InvalidValue:
    return InvalidValue("The cursor is not one that this list gave out.", param="cursor")
