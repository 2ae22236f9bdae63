"""The clock that paces replies: a slot for every millisecond, and one timer for all streams."""

import asyncio
import heapq
import math
import time
from collections.abc import Callable

_SLOTS_PER_SECOND = 1000  # as fine as the loop's timers are

Tick = Callable[[float], None]


class Pace:
    """Calls back at given times of `time.monotonic()`, up to a millisecond early.

    A timer of the loop for every token of every stream would cost more than the tokens themselves.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ticks: dict[int, list[Tick]] = {}
        self._slots: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for: float = math.inf

    def at(self, due: float, tick: Tick) -> None:
        """Call `tick(now)` at `due`. There is no cancelling: a tick that came too late finds nothing to do."""
        slot = int(due * _SLOTS_PER_SECOND) + 1
        ticks = self._ticks.get(slot)
        if ticks is not None:
            ticks.append(tick)
            return
        self._ticks[slot] = [tick]
        heapq.heappush(self._slots, slot)
        if slot < self._armed_for:
            self._arm(slot)

    def _arm(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = slot
        self._timer = self._loop.call_later(max(0.0, slot / _SLOTS_PER_SECOND - time.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._armed_for = -math.inf  # while ticks run nobody arms: it is done once, below
        now = time.monotonic()
        # A slot less than a millisecond ahead is taken now: the loop would round that wait to none, and spin.
        while self._slots and self._slots[0] <= now * _SLOTS_PER_SECOND + 1:
            slot = heapq.heappop(self._slots)
            horizon = max(now, slot / _SLOTS_PER_SECOND)
            for tick in self._ticks.pop(slot):
                try:
                    tick(horizon)
                except Exception as error:
                    # One stream's bug must not stop the others; the loop's handler writes it to the log.
                    self._loop.call_exception_handler({"message": "a paced reply failed", "exception": error})
        self._armed_for = math.inf
        if self._slots:
            self._arm(self._slots[0])
