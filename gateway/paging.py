"""Paging: the two query parameters of every list, and a page of a list that is in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, TypeVar

from litestar.params import Parameter

from schemas.faults import InvalidValue

T = TypeVar("T")

Limit = Annotated[int, Parameter(ge=1, le=100, description="How many to answer at most.")]
Cursor = Annotated[str | None, Parameter(description="`next_cursor` of the page before.")]
DEFAULT_LIMIT = 20

_CURSOR = re.compile(r"[A-Za-z0-9_.=-]{1,512}")


def checked(cursor: str | None) -> str | None:
    """A cursor that may be one of ours; an empty one is none. Raises InvalidValue."""
    if not cursor:
        return None
    if not _CURSOR.fullmatch(cursor):
        raise bad_cursor()
    return cursor


def bad_cursor() -> InvalidValue:
    """As the records worker says it of its lists."""
    return InvalidValue("The cursor is not one that this list gave out.", param="cursor")


def page_of(names: Sequence[str], items: Sequence[T], limit: int, cursor: str | None) -> tuple[list[T], str | None]:
    """The part of a list that follows the item named by the cursor, and the cursor of the next part."""
    start = 0
    if (after := checked(cursor)) is not None:
        if after not in names:
            raise bad_cursor()
        start = names.index(after) + 1
    end = min(start + limit, len(items))
    return list(items[start:end]), names[end - 1] if end < len(items) else None
