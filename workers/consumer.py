"""Feeds a FastStream subscriber from JetStream by credits: never more messages in hand than free slots.

FastStream's own pull loop prefetches beyond its workers, strands what it prefetched when it stops, and after a long
outage spins without yielding (measured; `ops/decisions/0003-pull-by-credits.md`). `tests/contract` pins the two private
methods of FastStream 0.7 that this replaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from ops.runtime.bus import Bus
from workers.cancelling import end_all

log = structlog.get_logger()

EXPIRES = 30.0
"""Seconds after which the server forgets a request for messages, and we ask again."""
HEARTBEAT = 5.0
"""Seconds between the server's signs of life while it has nothing for us."""
MISSED = 2.5
"""Heartbeats that may be missed before the request counts as lost."""
SIGNS_MISSED = 2
"""Signs of life within which a request ends: before the messages in hand of a worker that gives none are delivered
again (after three), or the frozen worker's own requests would swallow what others are to take over from it."""
REFUSED_PAUSE = 0.25
HANG_UP_SECONDS = 2.0
"""How long the server may take to say that it will send no more."""


class PullLoop:
    """Asks for as many messages as there are free slots, and again whenever a slot frees up.

    It asks anew after a reconnect, after a status from the server, and when the server has been silent too long: the
    credit count is only what we believe the server still owes us.
    """

    def __init__(
        self, bus: Bus, stream: str, consumer: str, handle: Callable[[Msg], Awaitable[Any]], slots: int, alive: float
    ) -> None:
        self._bus, self._handle, self._slots = bus, handle, slots
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._alive = alive
        self._owed = 0
        self._refill_at = max(1, slots // 2)
        self._stopping = False
        self._running: dict[asyncio.Task[None], Msg] = {}
        self._watching: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._refused: asyncio.Task[None] | None = None
        self._heard = 0.0
        self._anew = asyncio.Lock()

    @property
    def busy(self) -> int:
        """Messages in hand."""
        return len(self._running)

    async def start(self) -> None:
        """Begin to consume."""
        await self._listen()
        self._bus.on_reconnect.append(self._ask_anew)
        self._heard = asyncio.get_running_loop().time()
        await self._ask()
        self._watching = asyncio.create_task(self._watch())
        self._keeping = asyncio.create_task(self._keep_alive())

    async def stop(self, grace: float) -> int:
        """Take no more, give what arrives now back, let running work end within `grace` seconds, then cancel it.

        Says how many were cancelled; they are given back at once, so that another worker goes on.
        """
        self._stopping = True
        _cancel(self._watching)  # it would find the silence suspicious
        with contextlib.suppress(ValueError):
            self._bus.on_reconnect.remove(self._ask_anew)
        await self._hang_up()
        if self._running:
            await asyncio.wait(list(self._running), timeout=grace)
        left = list(self._running)
        await end_all(left)
        _cancel(self._keeping, self._refused)
        return len(left)

    async def _listen(self) -> None:
        self._inbox = self._bus.client.new_inbox()
        self._subscription = await self._bus.client.subscribe(self._inbox, cb=self._on_message)

    async def _hang_up(self) -> None:
        """Hear out what the server has sent so far: what it still owes us it will not send any more."""
        listening = self._subscription
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            async with asyncio.timeout(HANG_UP_SECONDS):
                # Not nats-py's drain: its ping overtakes the unsubscribing, and what is sent between the two is lost.
                await self._bus.client._send_unsubscribe(listening._id)
                await self._bus.flush()
                await listening._pending_queue.join()
        with contextlib.suppress(nats.errors.Error):
            await listening.unsubscribe()

    async def _ask(self) -> None:
        wanted = self._slots - len(self._running) - self._owed
        if wanted <= 0 or self._stopping:
            return
        self._owed += wanted
        expires = min(EXPIRES, SIGNS_MISSED * self._alive)
        heartbeat = min(HEARTBEAT, expires / 2)  # the server takes no more than half
        body = {"batch": wanted, "expires": int(expires * 1e9), "idle_heartbeat": int(heartbeat * 1e9)}
        try:
            await self._bus.client.publish(self._next, msgspec.json.encode(body), reply=self._inbox)
        except nats.errors.Error:
            self._owed = 0  # the watch, or the reconnect, asks again

    async def _ask_anew(self) -> None:
        # On a new inbox: the server may still hold what was asked before, and would then send twice as much.
        async with self._anew:
            await self._hang_up()
            await self._listen()
            self._owed = 0
            await self._ask()

    async def _on_message(self, message: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        if not message.reply.startswith("$JS.ACK"):
            await self._on_status(message)
            return
        self._owed = max(0, self._owed - 1)
        if self._stopping or len(self._running) >= self._slots:
            await message.nak()
            return
        task = asyncio.create_task(self._run(message))
        self._running[task] = message

    async def _on_status(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status == "100":
            return
        # The server names what it will not send any more of this request (ADR-13).
        self._owed = max(0, self._owed - int(headers.get("Nats-Pending-Messages") or self._owed))
        if status not in ("409", "503"):
            await self._ask()
        elif self._refused is None or self._refused.done():
            # Each of the requests that were under way is refused: asked again once, and not waited for in here, where
            # the next message would wait too.
            self._refused = asyncio.create_task(self._ask_later())

    async def _ask_later(self) -> None:
        await asyncio.sleep(REFUSED_PAUSE)
        await self._ask()

    async def _run(self, message: Msg) -> None:
        task = asyncio.current_task()
        assert task
        try:
            await self._handle(message)
        finally:
            self._running.pop(task, None)
            if self._owed <= self._refill_at and not self._stopping:
                await self._ask()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT / 2)
            silent = asyncio.get_running_loop().time() - self._heard
            if silent > MISSED * HEARTBEAT and self._bus.connected:
                log.warning("pull_lost", silent_s=round(silent, 1))
                self._heard += silent
                await self._ask_anew()

    async def _keep_alive(self) -> None:
        """Tell the server that every message in hand is still being worked on, before its lease ends."""
        while True:
            await asyncio.sleep(self._alive)
            for message in list(self._running.values()):
                if not message._ackd:
                    with contextlib.suppress(nats.errors.Error):
                        await message.in_progress()


def _cancel(*tasks: asyncio.Task[None] | None) -> None:
    for task in tasks:
        if task is not None:
            task.cancel()


def fed_by_credits(
    subscriber: Any, bus: Bus, stream: str, consumer: str, *, slots: int, alive: float, grace: float
) -> PullLoop:
    """Make a FastStream pull subscriber consume through a PullLoop: `slots` at once, a sign of life each `alive` s."""
    loop = PullLoop(bus, stream, consumer, subscriber.consume, slots, alive)
    stop_of_faststream = subscriber.stop

    async def create_subscription(self: Any) -> None:
        await loop.start()

    async def stop(self: Any) -> None:
        left = await loop.stop(grace)
        if left:
            log.warning("handed_over", turns=left)
        await stop_of_faststream()

    subscriber._create_subscription = types.MethodType(create_subscription, subscriber)
    subscriber.stop = types.MethodType(stop, subscriber)
    return loop
