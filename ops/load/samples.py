"""Percentiles, and a bounded bag of measurements to take them from."""

import random
from array import array
from collections.abc import Sequence

import msgspec

SAMPLES_KEPT = 2_000_000


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How measurements lie, in milliseconds; None throughout when nothing was measured."""

    count: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest of the ascending `ordered` that at least `percent` (1 to 100) of them do not exceed.

    Nearest rank: the answer is always a value that was measured. Raises ValueError when there is none.
    """
    if not ordered:
        raise ValueError("nothing was measured")
    rank = -(-percent * len(ordered) // 100)
    return ordered[rank - 1]


class Samples:
    """Seconds, added one by one. Count and maximum are exact.

    Percentiles are exact up to `kept` samples; beyond, they come from a uniform choice of that many, so that
    a long run needs no more memory than a short one.
    """

    def __init__(self, kept: int = SAMPLES_KEPT) -> None:
        self.count = 0
        self.max = 0.0
        self._limit = kept
        self._kept = array("d")

    def add(self, seconds: float) -> None:
        """Remember one measurement."""
        self.count += 1
        if seconds > self.max:
            self.max = seconds
        if self.count <= self._limit:
            self._kept.append(seconds)
            return
        slot = random.randrange(self.count)  # noqa: S311 - a statistical choice, nothing secret
        if slot < self._limit:
            self._kept[slot] = seconds

    def spread(self) -> Spread:
        """The percentiles so far, in milliseconds."""
        if not self.count:
            return Spread(count=0)
        ordered = sorted(self._kept)
        p50, p95, p99 = (percentile(ordered, percent) * 1000 for percent in (50, 95, 99))
        return Spread(count=self.count, p50=p50, p95=p95, p99=p99, max=self.max * 1000)
