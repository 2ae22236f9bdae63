"""Pure: a reply's events as the bytes of OpenAI's chat.completion.chunk stream.

The SSE id counts the events a client can see, from 1: the opening chunk is 1, the reply's event `i` is `i + 1`, then
come the finishing chunks and the usage. Written by hand, since of each chunk only a few words differ; the wire's rules
are in `protocol.md`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.openai import Usage
from schemas.replies import Delta, Failed, Finished, Progress, Start

encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": ping\n"
"""One newline: a comment that ends in a blank line makes openai-python parse an empty event."""
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class ChunkStream:
    """Writes one reply for one reader. `after`: the last SSE id the reader has; what it has is not sent again."""

    def __init__(
        self, *, turn_id: str, model: str, created: int, cozy: dict[str, Any], include_usage: bool, after: int = 0
    ) -> None:
        head = {"id": f"chatcmpl-{turn_id}", "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = b"data: " + encode(head)[:-1]
        self._tail = (b',"usage":null}' if include_usage else b"}") + b"\n\n"
        self._include_usage = include_usage
        self._cozy = cozy
        self._after = after
        self._opened: set[int] = {0}

    def open(self) -> bytes:
        """The first chunk: the role, and in `cozy` what this turn is."""
        if self._after >= 1:
            return b""
        role = b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        return b"id: 1\n" + self._head + b"," + role + b',"cozy":' + encode(self._cozy) + self._tail

    def delta(self, delta: Delta) -> bytes:
        """One event of the reply."""
        said = self._said(delta)
        if delta.index + 1 <= self._after:
            return b""
        return b"".join(
            (
                b"id: %d\n" % (delta.index + 1),
                self._head,
                b',"choices":[{"index":%d,"delta":{' % delta.choice,
                said,
                b'},"logprobs":',
                encode(delta.logprobs) if delta.logprobs is not None else b"null",
                b',"finish_reason":null}]',
                self._tail,
            )
        )

    def _said(self, delta: Delta) -> bytes:
        parts = []
        if delta.choice not in self._opened:
            self._opened.add(delta.choice)
            parts.append(b'"role":"assistant"')
        if delta.reasoning:
            parts.append(b'"reasoning_content":' + encode(delta.reasoning))
        if delta.text:
            parts.append(b'"content":' + encode(delta.text))
        if delta.refusal:
            parts.append(b'"refusal":' + encode(delta.refusal))
        if delta.tool_calls:
            calls = [
                {"index": i, "id": call.id, "type": call.type, "function": call.function}
                for i, call in enumerate(delta.tool_calls)
            ]
            parts.append(b'"tool_calls":' + encode(calls))
        return b",".join(parts)

    def progress(self, progress: Progress) -> bytes:
        """A tool of ours at work: news in `cozy`, nothing a client could mistake for a tool call of its own."""
        tool = {"name": progress.tool, "call_id": progress.call_id, "state": progress.state}
        return self.news({"tool": tool})

    def taken_over(self, start: Start) -> bytes:
        """Another worker goes on with the reply."""
        return self.news({"attempts": start.attempt})

    def news(self, cozy: dict[str, Any]) -> bytes:
        """A chunk without choices, which every client takes, that says something in `cozy`."""
        return self._head + b',"choices":[],"cozy":' + encode(cozy) + self._tail

    def finish(self, end: Finished) -> bytes:
        """The end: why each choice ended, the usage where it was asked for, `[DONE]`."""
        parts = []
        number = end.index + 1
        for choice, reason in enumerate(end.finish_reasons):
            number += 1
            if number > self._after:
                parts.append(self._finished(choice, reason, number, end.stopped))
        if self._include_usage and number + 1 > self._after:
            usage = b',"choices":[],"usage":' + encode_usage(end.usage) + b"}\n\n"
            parts.append(b"id: %d\n" % (number + 1) + self._head + usage)
        return b"".join(parts) + DONE

    def _finished(self, choice: int, reason: str, number: int, stopped: bool) -> bytes:
        ended = b',"choices":[{"index":%d,"delta":{},"logprobs":null,"finish_reason":%s}]' % (choice, encode(reason))
        cozy = b',"cozy":' + encode({"state": "cancelled", "stopped": True}) if stopped else b""
        return b"id: %d\n" % number + self._head + ended + cozy + self._tail

    def failed(self, end: Failed, body: bytes) -> bytes:
        """The reply broke off: say how the turn stands, then the error, then nothing (all clients raise on it)."""
        news = b"" if end.state == "unread" else self.news({"state": end.state})
        return news + b"data: " + body + b"\n\n"


def encode_usage(usage: Usage) -> bytes:
    """OpenAI's usage object; details only where the provider gave them."""
    plain = {name: value for name, value in msgspec.structs.asdict(usage).items() if value is not None}
    return encode(plain)
