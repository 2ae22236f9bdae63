"""How long words may wait to travel together: not at all on an idle machine, up to a limit on a busy one."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import structlog

log = structlog.get_logger()

MEASURE_SECONDS = 0.25
IDLE, BUSY = 0.1, 0.4
"""Share of one core: below the first nothing waits, above the second everything waits the whole window."""


class Traveller(Protocol):
    """A reply with words to send."""

    async def flush(self) -> None:
        """Send them."""


class Pace:
    """One a process. Replies with words to send board together and depart together.

    A frame costs about the same whether it carries one token or ten, and a write to the bus whether it carries one
    frame or a hundred (most of it is waking the process at the other end). So merging is what keeps a busy process
    from falling behind; on an idle one it would only add delay.
    """

    def __init__(self, window_max: float) -> None:
        self.window = 0.0
        self._max = window_max
        self._aboard: dict[Traveller, None] = {}
        self._departure: asyncio.TimerHandle | None = None
        self._journeys: set[asyncio.Task[None]] = set()

    def board(self, traveller: Traveller) -> None:
        """Have `traveller.flush` called at the next departure, at most `window` seconds from now."""
        self._aboard[traveller] = None
        if self._departure is None:
            self._departure = asyncio.get_running_loop().call_later(self.window, self._depart)

    def leave(self, traveller: Traveller) -> None:
        """Do not wait for the departure after all."""
        self._aboard.pop(traveller, None)

    def _depart(self) -> None:
        self._departure = None
        aboard, self._aboard = self._aboard, {}
        journey = asyncio.get_running_loop().create_task(self._carry(list(aboard)))
        self._journeys.add(journey)
        journey.add_done_callback(self._journeys.discard)

    @staticmethod
    async def _carry(aboard: list[Traveller]) -> None:
        for traveller in aboard:
            try:
                await traveller.flush()
            except Exception as error:  # who reads it misses a frame, and asks; the others aboard must not wait
                log.warning("flush_failed", error=type(error).__name__)

    async def measure(self) -> None:
        """Follow the process's own use of the CPU, for ever."""
        wall, cpu = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            now, used = time.monotonic(), time.process_time()
            busy = (used - cpu) / max(now - wall, 1e-6)
            wall, cpu = now, used
            self.window = self._max * min(1.0, max(0.0, (busy - IDLE) / (BUSY - IDLE)))
