"""How fast the scripted server is: `python -m ops.local.scripted.bench`, about ten seconds.

Measures a server of its own: replies of 100 tokens at zero gap, and 1,000 streams at 10 tokens a second. The
reading side counts events and parses nothing, so that it measures the server and not itself.
"""

import asyncio
import subprocess
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import msgspec
import psutil

_END = b"data: [DONE]"
_LIMIT_S = 60
_EXTRA_EVENTS = 3  # role, finish and the end


class _Reader(asyncio.Protocol):
    """Sends the same request again and again and counts the events that come back."""

    def __init__(self, request: bytes, times: int) -> None:
        self.events = 0
        self.done = asyncio.get_running_loop().create_future()
        self._request, self._left, self._tail = request, times, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._ask()

    def _ask(self) -> None:
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        # What belongs to a word cut in two was not counted before: the tail is shorter than the word.
        seen = self._tail + data
        self.events += seen.count(b"data: ")
        self._tail = seen[-5:]
        if _END in seen[-40:]:
            self._tail = b""
            self._left -= 1
            if self._left:
                self._ask()
            elif not self.done.done():
                self.done.set_result(self.events)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server closed a stream"))


def _request(host: str, tokens: int, gap_ms: float) -> bytes:
    body = msgspec.json.encode(
        {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "Tell me something."}]}
    )
    lines = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n"
    return f"{lines}x-scripted-tokens: {tokens}\r\nx-scripted-gap-ms: {gap_ms}\r\n\r\n".encode() + body


async def _measure(url: str, server: psutil.Process, streams: int, times: int, gap_ms: float, tokens: int) -> str:
    at = urlsplit(url)
    request = _request(at.netloc, tokens, gap_ms)
    loop = asyncio.get_running_loop()
    cpu, started = sum(server.cpu_times()[:2]), time.perf_counter()
    address = at.hostname or "", at.port or 80
    opened = [await loop.create_connection(lambda: _Reader(request, times), *address) for _ in range(streams)]
    events = sum(await asyncio.gather(*(reader.done for _, reader in opened)))
    elapsed, spent = time.perf_counter() - started, sum(server.cpu_times()[:2]) - cpu
    for transport, _ in opened:
        transport.abort()
    sent = streams * times * tokens
    if events != sent + streams * times * _EXTRA_EVENTS:
        raise RuntimeError(f"{events} events arrived, not {sent} tokens and {_EXTRA_EVENTS} more a reply")
    return (
        f"{streams} streams x {times} x {tokens} tokens, gap {gap_ms} ms: {sent / elapsed:,.0f} tokens/s, "
        f"{spent / sent * 1e6:.2f} us of server CPU a token, {server.memory_info().rss / 1e6:.0f} MB"
    )


async def _run(url: str, server: psutil.Process) -> None:
    async with asyncio.timeout(_LIMIT_S):
        await _measure_both(url, server)


async def _measure_both(url: str, server: psutil.Process) -> None:
    print(await _measure(url, server, streams=20, times=250, gap_ms=0, tokens=100), flush=True)
    print(await _measure(url, server, streams=1000, times=1, gap_ms=100, tokens=50), flush=True)


def main() -> None:
    """Start a server, measure it, end it."""
    command = [sys.executable, "-m", "ops.local.scripted", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own words
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            asyncio.run(_run(url, psutil.Process(process.pid)))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
