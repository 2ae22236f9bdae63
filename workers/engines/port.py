"""What every engine of every kind promises."""

from __future__ import annotations

from typing import Any, Protocol


class Engine(Protocol):
    """The life of an engine. All three are idempotent; none is called before `initialize`, none after `close`."""

    api_version: int
    """The version of its kind's port it was written for. The registry refuses any other."""

    async def initialize(self) -> None:
        """Make ready. Must not fail because a server is away: that shows in `health_check` and in each call."""

    async def health_check(self) -> dict[str, Any]:
        """Facts about a healthy engine, within two seconds. Raises a Fault where it is not healthy."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
