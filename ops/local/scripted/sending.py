"""How a planned answer leaves: paced, blocked by slow readers, failing where it was asked to."""

import time
from collections.abc import Iterator
from itertools import islice

from ops.local.scripted import wire
from ops.local.scripted.connection import Exchange
from ops.local.scripted.controls import Controls
from ops.local.scripted.pace import Pace
from ops.local.scripted.records import Record

_BATCH = 256
_SPLIT_PAUSE = 0.002
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


def send_whole(exchange: Exchange, record: Record, pace: Pace, controls: Controls, body: bytes, count: int) -> None:
    """Send an answer that is not streamed, of `count` tokens, after the time these would have taken."""
    _note_loss(exchange, record)

    def send(_: float) -> None:
        if record.closed_early:
            return
        match controls.fail:
            case "hang":
                return
            case "cut":
                record.status, record.finished = 200, True
                exchange.answer_half(200, body) if controls.fail_after else exchange.cut()
            case "malformed":
                record.status, record.finished = 200, True
                exchange.answer(200, body[: len(body) // 2])
            case _:
                record.status, record.finished, record.tokens_sent = 200, True, count
                exchange.answer(200, body)

    wait = (controls.ttft_ms + controls.gap_ms * max(0, count - 1)) / 1000
    if wait:
        pace.at(time.monotonic() + wait, send)
    else:
        send(time.monotonic())


class StreamedReply:
    """One stream on its way: its opening, its tokens when they are due, its end or its failure."""

    def __init__(
        self,
        exchange: Exchange,
        record: Record,
        pace: Pace,
        controls: Controls,
        opening: bytes,
        events: Iterator[bytes],
        count: int,
        closing: bytes,
    ) -> None:
        self._exchange, self._record, self._pace, self._controls = exchange, record, pace, controls
        self._opening, self._events, self._closing = opening, events, closing
        self._gap = controls.gap_ms / 1000
        self._batch = 1 if controls.split_utf8 else _BATCH
        self._ending = controls.fail
        self._after_ending = 0
        self._left = count
        if self._ending != "none":
            self._left = min(count, controls.fail_after)
            self._after_ending = count - self._left
        self._next = 0.0
        self._waiting = False
        self._held = b""
        self._outbox: list[bytes] = []

    def start(self) -> None:
        """Send the headers and the opening, and the tokens from now on."""
        _note_loss(self._exchange, self._record)
        if self._controls.fail_after == 0 and self._ending in ("hang", "cut"):
            self._end()
            return
        self._record.status = 200
        self._exchange.start_stream(_STREAM_HEADERS)
        self._exchange.on_writable = self._writable
        self._outbox.append(self._opening)
        now = time.monotonic()
        self._next = now + self._controls.ttft_ms / 1000
        if self._next > now:
            self._flush()
            self._later(self._next)
        else:
            self._pump(now)

    def _later(self, due: float) -> None:
        self._waiting = True
        self._pace.at(due, self._pump)

    def _writable(self) -> None:
        # With a tick already on its way, a second chain of ticks would start here.
        if not self._waiting:
            self._pump(time.monotonic())

    def _pump(self, now: float) -> None:
        """Send what is due, then come back when more is, or when the client reads again."""
        self._waiting = False
        if self._record.closed_early or self._record.finished:
            return
        if self._held:
            self._outbox.append(self._held)
            self._held = b""
        while self._left and not self._exchange.blocked:
            due = self._due(now)
            if not due:
                self._flush()
                self._later(self._next)
                return
            if self._send(due):
                return
        if not self._left:
            self._end()

    def _due(self, now: float) -> int:
        """How many tokens are due; late ones are made up for, so that the rate holds."""
        if now < self._next:
            return 0
        if not self._gap:
            return min(self._batch, self._left)
        due = min(self._batch, self._left, int((now - self._next) / self._gap) + 1)
        self._next += due * self._gap
        return due

    def _send(self, count: int) -> bool:
        """Send the next tokens; True if the rest must wait because a character was cut in two."""
        events = list(islice(self._events, count))
        self._left -= count
        self._record.tokens_sent += count
        if self._controls.split_utf8:
            return self._send_split(events[0])
        self._outbox += events
        if count == self._batch:
            self._flush()
        return False

    def _send_split(self, event: bytes) -> bool:
        cut = next((place for place, byte in enumerate(event) if byte >= 0x80), -1) + 1
        self._outbox.append(event[:cut] if cut else event)
        self._flush()
        if cut:
            self._held = event[cut:]
            self._later(time.monotonic() + _SPLIT_PAUSE)
        return cut > 0

    def _flush(self, *, last: bool = False) -> None:
        data = b"".join(self._outbox)
        self._outbox.clear()
        self._exchange.write(data, last=last)

    def _end(self) -> None:
        """All tokens before the end are out: finish, or fail."""
        match self._ending:
            case "hang":
                self._flush()
            case "cut":
                self._flush()
                self._record.finished = True
                self._exchange.cut()
            case "malformed":
                self._outbox.append(wire.MALFORMED)
                self._ending, self._left = "none", self._after_ending
                self._pump(time.monotonic())
            case _:
                self._record.finished = True
                self._outbox.append(self._closing)
                self._flush(last=True)


def _note_loss(exchange: Exchange, record: Record) -> None:
    def lost() -> None:
        record.closed_early = True

    exchange.on_lost = lost
