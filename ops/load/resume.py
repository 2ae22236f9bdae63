"""Readers that all come back at once, as after the restart of a gateway: how soon they are served, at what memory.

Speaks only the public protocol. Opens so many streamed chats, reads them for a while, breaks all connections at the
same moment, comes back at once with each one's last id (GET /v1/turns/{id}/stream) and reads all to their ends:
  python -m ops.load.resume --url http://127.0.0.1:8000 --key sk-cozy-dev --readers 1000 --run-json .data/run.json

A reader is served when it has the first event that it did not have. Beside it, in the same run: the chats' own first
events, and as many plain requests at once (GET /v1/turns/{id}), which show what the machine gives for any answer.
Exit code: 0, 1 if any reader missed an event, saw one twice, or was not served; 2 if the run could not be made.
"""

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Iterable, Sequence
from pathlib import Path

import psutil
import uvloop

from ops.load.chat import _allow_many_connections
from ops.load.processes import GATEWAY, listed

TURN = re.compile(rb'"turn_id":"([0-9a-f-]{36})"')
IDS = re.compile(rb"^id: (\d+)$", re.MULTILINE)
MB = 1 << 20


class Reader:
    """One client: its turn, the last event it has, and whether any was missing or came twice."""

    def __init__(self, host: str, key: str) -> None:
        self._host, self._key = host, key
        self.turn_id = ""
        self.last = 0
        self.torn = 0
        self.ended = False
        self._writer: asyncio.StreamWriter | None = None

    async def chat(self, url: str, tokens: int, gap_ms: int, opened: asyncio.Event) -> float:
        """Ask, and read until cut off. Seconds to the first event."""
        body = b'{"model":"cozy/default","stream":true,"messages":[{"role":"user","content":"Go on."}]}'
        head = f"x-scripted-tokens: {tokens}\r\nx-scripted-gap-ms: {gap_ms}\r\ncontent-length: {len(body)}\r\n"
        return await self._read(url, f"POST /v1/chat/completions HTTP/1.1\r\n{head}", body, opened)

    async def come_back(self, url: str) -> float:
        """Read the rest. Seconds to the first event that is new."""
        head = f"GET /v1/turns/{self.turn_id}/stream HTTP/1.1\r\nlast-event-id: {self.last}\r\n"
        return await self._read(url, head, b"", None)

    async def ask(self, url: str) -> float:
        """One plain request. Seconds to its answer."""
        began = time.perf_counter()
        reader = await self._send(url, f"GET /v1/turns/{self.turn_id} HTTP/1.1\r\n", b"")
        await reader.readuntil(b"\r\n\r\n")
        self.cut()
        return time.perf_counter() - began

    def cut(self) -> None:
        """Break the connection."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def _send(self, url: str, head: str, body: bytes) -> asyncio.StreamReader:
        host, _, port = url.rpartition("//")[2].partition(":")
        reader, self._writer = await asyncio.open_connection(host, int(port.partition("/")[0] or 80))
        common = f"host: {self._host}\r\nauthorization: Bearer {self._key}\r\ncontent-type: application/json\r\n\r\n"
        self._writer.write((head + common).encode() + body)
        return reader

    async def _read(self, url: str, head: str, body: bytes, opened: asyncio.Event | None) -> float:
        began, first = time.perf_counter(), 0.0
        rest = b""
        try:
            reader = await self._send(url, head, body)
            while data := await reader.read(1 << 16):
                *whole, rest = (rest + data).split(b"\n\n")
                before = self.last
                self._note(b"\n\n".join(whole))
                if not first and self.last > before:
                    first = time.perf_counter() - began
                    if opened is not None:
                        opened.set()
                if self.ended:  # the connection would be kept for another request
                    break
        except OSError:
            pass  # cut off, by us or not: `ended` and `last` tell
        return first

    def _note(self, events: bytes) -> None:
        if not self.turn_id and (found := TURN.search(events)):
            self.turn_id = found[1].decode()
        for number in map(int, IDS.findall(events)):
            self.torn += number != self.last + 1
            self.last = number
        self.ended = self.ended or b"data: [DONE]" in events


class Memory:
    """The gateways' resident memory while entered, a look every quarter of a second."""

    def __init__(self, run_json: Path | None) -> None:
        entries = listed(run_json) if run_json else []
        self._gateways = [psutil.Process(entry.pid) for entry in entries if GATEWAY in entry.name]
        self.peak = self.before = self._look()

    def _look(self) -> int:
        return sum(process.memory_info().rss for process in self._gateways)

    async def watch(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(0.25)
            self.peak = max(self.peak, self._look())

    @property
    def row(self) -> str:
        """Before, at most, and now."""
        return f"{self.before / MB:.1f} -> {self.peak / MB:.1f} (now {self._look() / MB:.1f})"


async def run(given: argparse.Namespace) -> int:
    """The whole run; prints its figures."""
    memory = Memory(given.run_json)
    watching = asyncio.create_task(memory.watch())
    readers = [Reader("load", given.key) for _ in range(given.readers)]
    events = [asyncio.Event() for _ in readers]
    chats = []
    for reader, opened in zip(readers, events, strict=True):
        chats.append(asyncio.create_task(reader.chat(given.url, given.tokens, given.gap_ms, opened)))
        await asyncio.sleep(given.open_over / given.readers)
    await asyncio.wait_for(asyncio.gather(*(opened.wait() for opened in events)), given.timeout)
    await asyncio.sleep(given.read_for)
    open_memory = memory.row
    for reader in readers:
        reader.cut()
    fresh = await asyncio.gather(*chats)
    had = [reader.last for reader in readers]
    again = given.again_url or given.url
    memory = Memory(given.run_json)
    watching.cancel()
    watching = asyncio.create_task(memory.watch())
    back = await _at_once(given.timeout, (reader.come_back(again) for reader in readers))
    watching.cancel()
    plain = await _at_once(given.timeout, (reader.ask(again) for reader in readers))
    torn, unserved = sum(reader.torn for reader in readers), sum(not seconds for seconds in back)
    unended = sum(not reader.ended for reader in readers)
    print(f"{given.readers} readers of {given.readers} replies, {given.tokens} tokens, one every {given.gap_ms} ms")
    print(f"events a reader had when it was cut off: {min(had)} to {max(had)}")
    _row("come back: first event missed, s", back)
    _row("fresh chat: first event, s", fresh)
    _row("plain request, s", plain)
    print(f"missed or doubled events {torn}, not served {unserved}, not read to the end {unended}")
    print(f"gateway RSS MB while opening: {open_memory}; while coming back: {memory.row}")
    return 1 if torn or unserved or unended else 0


async def _at_once(timeout: float, asked: Iterable[Awaitable[float]]) -> Sequence[float]:
    return await asyncio.wait_for(asyncio.gather(*asked), timeout)


def _row(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    figures = [ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1]]
    print(f"{name:36} p50 {figures[0]:7.3f}  p99 {figures[1]:7.3f}  last {figures[2]:7.3f}")


def main() -> int:
    """Run the command line; the exit code is described above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--url", required=True, help="the gateway to chat with")
    add("--again-url", help="the gateway to come back to (default: the same)")
    add("--key", required=True)
    add("--readers", type=int, default=1000)
    add("--tokens", type=int, default=120, help="of each reply (%(default)s)")
    add("--gap-ms", type=int, default=300, help="between two tokens (%(default)s)")
    add("--open-over", type=float, default=10.0, metavar="SECONDS")
    add("--read-for", type=float, default=10.0, metavar="SECONDS", help="before all are cut off (%(default)s)")
    add("--timeout", type=float, default=180.0, metavar="SECONDS")
    add("--run-json", type=Path, help="processes to watch: DATA_DIR/run.json")
    given = parser.parse_args()
    _allow_many_connections()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(given))
    except (OSError, TimeoutError) as problem:
        print(f"no figures: {problem!r}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
