"""The clock: what time it is, anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from schemas.openai import FunctionSpec, Tool
from workers.engines.tools.port import ToolFailed


class Clock:
    """Tells the date and the time in a time zone."""

    idempotent = True
    spec = Tool(
        function=FunctionSpec(
            name="clock",
            description="The current date and time.",
            parameters={
                "type": "object",
                "properties": {
                    "timezone": {
                        "type": "string",
                        "description": "An IANA time zone such as Europe/Berlin. UTC if left out.",
                    }
                },
                "additionalProperties": False,
            },
        )
    )

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now

    async def run(self, arguments: Mapping[str, Any], key: str) -> str:
        """`2026-11-20T19:42:52+00:00 (Friday, UTC)`"""
        name = arguments.get("timezone") or "UTC"
        try:
            zone = ZoneInfo(name) if isinstance(name, str) else None
        except (ValueError, OSError, KeyError):
            zone = None
        if zone is None:
            raise ToolFailed("There is no such time zone; use an IANA name such as Europe/Berlin.")
        local = self._now().astimezone(zone)
        return f"{local.isoformat(timespec='seconds')} ({local:%A}, {name})"
