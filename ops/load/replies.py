"""One answer as it comes in: fed with bytes and times, it knows what arrived and what went wrong."""

import msgspec

from ops.load.events import DATA, DONE, error_code, is_plainly_content, read_chunk, refusal_code
from ops.load.samples import Samples

BODY_KEPT = 64 * 1024


class Answer:
    """Any HTTP answer: its status, the beginning of its body, and its fault if it has one.

    A connection calls `head`, `body` as often as bytes come, and then exactly one of `end` and `lost`.
    Times are `time.perf_counter()` seconds. The first fault is kept.
    """

    def __init__(self) -> None:
        self.status = 0
        self.fault: str | None = None
        self.written_at = 0.0
        self.text = b""

    def head(self, status: int, content_type: bytes) -> None:
        """The status line and headers are here."""
        self.status = status

    def body(self, data: bytes, now: float) -> None:
        """Some of the body is here; what exceeds 64 KB is dropped."""
        if len(self.text) < BODY_KEPT:
            self.text += data

    def end(self) -> None:
        """The answer is whole, as far as HTTP can tell."""
        if not 200 <= self.status < 300:
            self.fail(f"http {self.status} {refusal_code(self.text)}")

    def lost(self) -> None:
        """The connection closed. That ends a body without a length, too: what is missing decides."""
        if self.status:
            self.end()
        else:
            self.fail("closed before response")

    def expire(self) -> None:
        """The time allowed is over."""
        self.fail("timeout" if self.status else "timeout before response")

    def fail(self, kind: str) -> None:
        """Note what went wrong; later faults are consequences of the first."""
        if self.fault is None:
            self.fault = kind


class Reply(Answer):
    """A streamed chat completion: when its first text came, the gaps between texts, its tokens, its end.

    `gaps` takes the seconds between successive content events; events that arrive in one read lie 0 apart.
    """

    def __init__(self, gaps: Samples) -> None:
        super().__init__()
        self.first_at: float | None = None
        self.events = 0
        self.usage_tokens: int | None = None
        self._done = False
        self._streams = False
        self._gaps = gaps
        self._last_at = 0.0
        self._rest = b""

    @property
    def tokens(self) -> int:
        """The tokens as the server reports them; the content events where it reports none."""
        return self.events if self.usage_tokens is None else self.usage_tokens

    def head(self, status: int, content_type: bytes) -> None:
        super().head(status, content_type)
        self._streams = status == 200 and content_type.startswith(b"text/event-stream")

    def body(self, data: bytes, now: float) -> None:
        if not self._streams:
            super().body(data, now)
            return
        if self._rest:
            data = self._rest + data
        whole = data.rfind(b"\n") + 1
        self._rest = data[whole:]
        for line in data[:whole].splitlines():
            if line.startswith(DATA):
                if is_plainly_content(line):
                    self._content(now)
                else:
                    self._look_closely(line[len(DATA) :].strip(), now)

    def end(self) -> None:
        super().end()
        if not self._streams:
            self.fail("not an event stream")
        elif not self._done:
            self.fail("cut without [DONE]")
        elif not self.events:
            self.fail("empty reply")

    def expire(self) -> None:
        if self._done:
            self.fail("timeout after [DONE]")
        elif self.first_at is not None:
            self.fail("timeout mid-stream")
        elif self.status:
            self.fail("timeout before first token")
        else:
            super().expire()

    def _content(self, now: float) -> None:
        self.events += 1
        if self.first_at is None:
            self.first_at = now
        else:
            self._gaps.add(now - self._last_at)
        self._last_at = now

    def _look_closely(self, payload: bytes, now: float) -> None:
        if payload == DONE:
            self._done = True
            return
        try:
            chunk = read_chunk(payload)
        except msgspec.DecodeError:
            self.fail("malformed event")
            return
        if chunk.error is not None:
            self.fail(f"stream error {error_code(chunk.error)}")
        if chunk.usage is not None:
            self.usage_tokens = chunk.usage.completion_tokens
        if chunk.has_content():
            self._content(now)
