"""Knows how the model servers are, and tells whoever asks on the bus."""

from __future__ import annotations

import asyncio
from typing import Any

from schemas import codec
from schemas.engines import EngineHealth, EnginesHealth
from workers.engines.ai.pool import EnginePool

LOOK_EVERY = 5.0
"""Seconds between two looks. Whoever asks gets the last one at once: a hanging provider must not hang the question."""


class EngineWatch:
    """One a process."""

    def __init__(self, engines: EnginePool) -> None:
        self._engines = engines
        self._last = EnginesHealth(providers={})

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            found = await self._engines.health_check()
            self._last = EnginesHealth(providers={name: _of(said) for name, said in found.items()})
            await asyncio.sleep(LOOK_EVERY)

    async def answer(self, _question: Any) -> bytes:
        """The last look, as msgpack of EnginesHealth; without providers before the first."""
        return codec.encode(self._last)


def _of(said: dict[str, Any]) -> EngineHealth:
    return EngineHealth(ok=said.get("status") == "ok", code=said.get("code"), latency_ms=said.get("latency_ms"))
