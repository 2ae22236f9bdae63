"""Who is slow: clients that stop reading, and a model server that falls silent in the middle of a reply."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from urllib.parse import urlsplit

import msgspec
import psutil

from ops.drills.audit import Violation, World
from ops.drills.clients import CHAT, Chat, Client, connector
from ops.drills.scene import LATE, Happening, Scene, play
from ops.drills.stack import KEY, PERSONALITY, Stack

STALLED = 16
STALLED_TOKENS, STALLED_GAP_MS = 3000, 8
LOGPROBS = {"logprobs": True, "top_logprobs": 10}
"""They make a token of a reply a kilobyte, so that it is more than the kernel's buffers take off the gateway."""
BUFFER = 4096
"""Bytes that a stalled client's machine takes for it, so that the rest waits at the gateway."""
HANG_UP = 60.0
"""Seconds after which the gateway has hung up on who does not read: 30, from when all buffers are full."""
MOST_MEMORY = 24 << 20
"""Bytes by which stalled clients may make a gateway grow."""
GREW = "memory grew"
LOOK_EVERY = 0.5
SILENCE = 2.0
"""Seconds of the model's silence that this drill's system bears, instead of 15."""


class Stalled:
    """A client that reads where its reply is to be found, and then nothing more."""

    def __init__(self, number: int, gateway: str) -> None:
        self.chat = Chat(number=number, session_id="", tokens=STALLED_TOKENS, gap_ms=STALLED_GAP_MS)
        self._where = urlsplit(gateway)

    async def begin(self) -> None:
        """Ask, and learn the turn's id."""
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, (self._where.hostname, self._where.port))
        self._reader, self._writer = await asyncio.open_connection(sock=plain, limit=BUFFER)
        self.chat.asked_at = time.monotonic()
        self._writer.write(self._request())
        await self._reader.readuntil(b'"turn_id":"')
        self.chat.turn_id = (await self._reader.readexactly(36)).decode()

    @property
    def port(self) -> int:
        """Our end of the connection, by which the gateway's end is known."""
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    def leave(self) -> None:
        """Go."""
        self._writer.transport.abort()

    def _request(self) -> bytes:
        body = msgspec.json.encode(
            {
                "model": "cozy/default",
                "stream": True,
                "messages": [{"role": "user", "content": f"I stall, number {self.chat.number}."}],
                "cozy": {"personality_id": PERSONALITY},
                **LOGPROBS,
            }
        )
        lines = [
            f"POST {CHAT} HTTP/1.1",
            f"host: {self._where.netloc}",
            f"authorization: Bearer {KEY}",
            f"x-scripted-tokens: {STALLED_TOKENS}",
            f"x-scripted-gap-ms: {STALLED_GAP_MS}",
            f"content-length: {len(body)}",
            "content-type: application/json",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


async def stalled(chats: int, seed: int) -> bool:
    """Clients stop reading: a gateway's memory stays bounded, others notice nothing, and what they left can be had."""
    found: list[Violation] = []

    def check(world: World, happening: Happening) -> list[Violation]:
        return found

    async with Stack() as stack:

        async def happen(happening: Happening) -> None:
            before = _memory(stack)
            gateways = stack.gateways()
            people = [Stalled(100_000 + n, gateways[n % len(gateways)]) for n in range(STALLED)]
            await asyncio.gather(*(one.begin() for one in people))
            happening.note("clients stalled", f"{STALLED} of them")
            still = {one.port for one in people}
            end, grown = time.monotonic() + HANG_UP, 0
            while (still := still & _callers(stack)) and time.monotonic() < end:
                grown = max(grown, *(now - before[name] for name, now in _memory(stack).items()))
                await asyncio.sleep(LOOK_EVERY)
            if still:
                late = f"{len(still)} of {STALLED} still connected after {HANG_UP:g} s without reading"
                found.append(Violation(LATE, late))
            gone = STALLED - len(still)
            happening.note("clients gone", f"{gone} were hung up on, a gateway grew by {grown >> 20} MiB")
            if grown > MOST_MEMORY:
                found.append(Violation(GREW, f"{grown >> 20} MiB"))
            for one in people:
                one.leave()
            await _read_on(stack, happening, [one.chat for one in people])

        scene = Scene(title="Clients that do not read", chats=chats, seed=seed, seconds=HANG_UP, stall=1.5)
        return await play(scene, stack, happen, check=check)


async def _read_on(stack: Stack, happening: Happening, chats: list[Chat]) -> None:
    async with connector() as http:
        client = Client(http, stack.gateways(), 60)
        for chat in chats:
            await client.talk(chat, random.Random(chat.number))  # noqa: S311
    happening.chats += chats


def _memory(stack: Stack) -> dict[str, int]:
    return {name: psutil.Process(stack.entry(name).pid).memory_info().rss for name in stack.names("gateway")}


def _callers(stack: Stack) -> set[int]:
    """The ports of everyone who is connected with a gateway."""
    pids = [stack.entry(name).pid for name in stack.names("gateway")]
    return {one.raddr.port for pid in pids for one in psutil.Process(pid).net_connections("tcp") if one.raddr}


async def upstream_hang(chats: int, seed: int) -> bool:
    """The model falls silent in the middle of each reply, once: replies go on after a pause."""
    settings = {
        "COZY_ENGINES__GENERATION__IDLE_TIMEOUT": f"{SILENCE:g}",
        "COZY_ENGINES__GENERATION__FIRST_TOKEN_TIMEOUT": f"{2 * SILENCE:g}",
    }
    async with Stack(settings) as stack:

        async def happen(happening: Happening) -> None:
            """Every chat brings its own fault along."""

        says = "[[fail=hang fail-after=10 fail-times=1]]"
        scene = Scene(title="The model hangs", chats=chats, seed=seed, says=says, stall=2 * SILENCE + 1)
        return await play(scene, stack, happen)
