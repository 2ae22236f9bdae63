"""The running counts of one server's replies, and the figures they come to."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from ops.load.plan import Target
from ops.load.replies import Reply
from ops.load.samples import Samples, Spread


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one server did. Rates are of replies that came whole, over the time this server was driven.

    `counted_by` says where tokens come from: "usage" as the server reports them, "events" where it reports none
    and content events stand for them, "both" where replies differ. `own_cpu_s` is the load program's.
    """

    url: str
    model: str
    ok: int
    failed: int
    errors: dict[str, int]
    seconds: float
    requests_per_s: float
    tokens: int
    tokens_per_s: float
    counted_by: str
    ttft_ms: Spread
    gap_ms: Spread
    content_events: int
    peak_open: int
    bytes_in: int
    own_cpu_s: float


class Tally:
    """Counts replies. `gaps` and `bytes_in` are written by those who hear them."""

    def __init__(self) -> None:
        self.gaps = Samples()
        self.bytes_in = 0
        self.tokens = 0
        self.peak_open = 0
        self._ttft = Samples()
        self._errors: Counter[str] = Counter()
        self._counted_by: Counter[str] = Counter()
        self._ok = 0
        self._events = 0
        self._open = 0
        self._seconds = 0.0
        self._own_cpu = 0.0

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Time inside belongs to this server."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - wall
            self._own_cpu += time.process_time() - cpu

    @contextmanager
    def one_open(self) -> Iterator[None]:
        """Inside, one more stream is open."""
        self._open += 1
        self.peak_open = max(self.peak_open, self._open)
        try:
            yield
        finally:
            self._open -= 1

    def count(self, reply: Reply) -> None:
        """Take in a reply that is over. Tokens count only if it came whole; its first text always does."""
        self._events += reply.events
        if reply.first_at is not None:
            self._ttft.add(reply.first_at - reply.written_at)
        if reply.fault is not None:
            self._errors[reply.fault] += 1
            return
        self._ok += 1
        self.tokens += reply.tokens
        self._counted_by["events" if reply.usage_tokens is None else "usage"] += 1

    def figures(self, target: Target) -> Figures:
        """The figures so far."""
        seconds = max(self._seconds, 1e-9)
        sources = list(self._counted_by)
        return Figures(
            url=target.base,
            model=target.model,
            ok=self._ok,
            failed=self._errors.total(),
            errors=dict(self._errors.most_common()),
            seconds=self._seconds,
            requests_per_s=self._ok / seconds,
            tokens=self.tokens,
            tokens_per_s=self.tokens / seconds,
            counted_by=sources[0] if len(sources) == 1 else "both" if sources else "usage",
            ttft_ms=self._ttft.spread(),
            gap_ms=self.gaps.spread(),
            content_events=self._events,
            peak_open=self.peak_open,
            bytes_in=self.bytes_in,
            own_cpu_s=self._own_cpu,
        )
