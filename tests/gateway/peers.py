"""The gateway's peers on the bus, as far as a test needs them: a NATS server, and somebody who answers for records."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.msg import Msg

from ops.runtime.bus import Bus
from schemas import codec
from schemas.faults import AuthInvalid, Fault
from schemas.records import Answer, Caller, FindCaller, Query

NATS = Path(sys.executable).with_name("nats-server")


class NatsServer:
    """A NATS server of its own process, on a port of its own that it keeps over restarts."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"nats://127.0.0.1:{port}"
        self._folder, self._port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start, and wait until it takes connections."""
        command = [str(NATS), "-a", "127.0.0.1", "-p", str(self._port), "-js", "-sd", str(self._folder)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        bus = await Bus.connect(self.url, "waiting")
        await bus.close()

    def kill(self) -> None:
        """As in a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RecordsPeer:
    """Answers the questions for the records worker from what the test put in: `answers[kind] = function`.

    `callers` are the keys' hashes it knows. `silent` makes it hear and not answer.
    """

    def __init__(self) -> None:
        self.callers: dict[str, Caller] = {}
        self.answers: dict[type[Any], Callable[[Any], Any]] = {FindCaller: self._find}
        self.asked: Counter[str] = Counter()
        self.silent = False
        self.heard = asyncio.Event()
        self._bus: Bus | None = None
        self._decode = codec.decoder(Query).decode

    async def open(self, url: str) -> None:
        """Begin to answer."""
        self._bus = await Bus.connect(url, "records-peer")
        await self._bus.client.subscribe("records.*", cb=self._hear, queue="records")
        await self._bus.flush()

    async def close(self) -> None:
        """Be gone: whoever asks finds nobody."""
        if self._bus is not None:
            await self._bus.close()
            self._bus = None

    def _find(self, query: FindCaller) -> Caller:
        caller = self.callers.get(query.key_hash)
        if caller is None:
            raise AuthInvalid
        return caller

    async def _hear(self, message: Msg) -> None:
        query = self._decode(message.data)
        self.asked[type(query).__name__] += 1
        self.heard.set()
        if not self.silent:
            await message.respond(codec.encode(self._answer(query)))

    def _answer(self, query: Any) -> Answer:
        try:
            return Answer(value=msgspec.Raw(codec.encode(self.answers[type(query)](query))))
        except Fault as fault:
            return Answer(fault=fault.record)
