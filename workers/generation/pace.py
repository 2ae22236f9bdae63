"""How long deltas may wait to travel together: not at all on an idle machine, up to a limit on a busy one."""

from __future__ import annotations

import asyncio
import time

MEASURE_SECONDS = 0.25
IDLE, BUSY = 0.35, 0.85
"""Share of one core: below the first nothing waits, above the second everything waits the whole window."""


class Pace:
    """One a process. A frame costs about the same whether it carries one token or ten, so merging is what keeps a
    busy process from falling behind; on an idle one it would only add delay."""

    def __init__(self, window_max: float) -> None:
        self.window = 0.0
        self._max = window_max

    async def measure(self) -> None:
        """Follow the process's own use of the CPU, for ever."""
        wall, cpu = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            now, used = time.monotonic(), time.process_time()
            busy = (used - cpu) / max(now - wall, 1e-6)
            wall, cpu = now, used
            self.window = self._max * min(1.0, max(0.0, (busy - IDLE) / (BUSY - IDLE)))
