"""Moments as text: how a `timestamptz` leaves the house."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`, to the microsecond, whatever zone the database's session is in."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def rfc3339_or_none(moment: datetime | None) -> str | None:
    """The same for a moment that may not have come."""
    return None if moment is None else rfc3339(moment)
