"""The bus: one NATS connection a process, configured so that an outage is a pause and never a silence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js.errors import APIError, NoStreamResponseError

from ops.runtime import metrics

log = structlog.get_logger()

RECONNECT_WAIT = 0.25
PING_EVERY = 10
CONNECT_SECONDS = 2
COMPLAIN_EVERY = 5.0
"""Seconds between two lines about a bus that is away."""
STORE_SECONDS = 1.0
"""How long one publish waits for the stream's receipt before it is sent again."""
STORE_BUDGET = 10.0
"""Seconds within which a message is stored, where nobody says otherwise."""
STREAM_FULL = {10077, 10122, 10047}
"""JetStream's codes for a stream at its limit (`max_bytes`, `max_msgs`, resources): waiting may help."""

Hear = Callable[[str, bytes], None]
Take = Callable[[bytes, bytes, bytes], None]
"""Is given a message's reply subject, its headers as they came, and its data."""


class BusUnavailable(Exception):
    """Nobody answered in time, or the bus is away. Waiting may help."""


class BusFull(BusUnavailable):
    """The stream is at its size limit and refuses; it takes messages again once it has been drained."""


class TooLarge(Exception):
    """The message is above the server's limit (`max_payload`). Waiting does not help."""


class Receipt(msgspec.Struct, frozen=True):
    """What JetStream answers to a stored message."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


read_receipt = msgspec.json.Decoder(Receipt).decode


class _Client(Client):
    """nats-py's client with a short way for subscriptions whose callback only takes note.

    The ordinary way costs a parsed header, a queue and a task switch for each message; a reply's frames come by the
    ten thousand, carry their own order and need none of it. `tests/contract` pins what this relies on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hearing: dict[int, Hear] = {}
        self.taking: dict[int, Take] = {}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        hear = self.hearing.get(sid)
        take = None if hear else self.taking.get(sid)
        if hear is None and take is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            if hear is not None:
                hear(subject.decode(), data)
            elif take is not None:
                take(reply, headers or b"", data)
        except Exception as error:
            # An exception here would end nats-py's read loop and leave a connection that hears nothing.
            log.error("listener_failed", error=type(error).__name__)


class Listener:
    """An open ear on one subject. Close it, or the server keeps sending."""

    def __init__(self, client: _Client, subscription: Subscription) -> None:
        self._client, self._subscription = client, subscription

    async def close(self) -> None:
        """Stop hearing. Harmless when the bus is away: a new connection does not ask for the subject again."""
        self._client.hearing.pop(self._subscription._id, None)
        self._client.taking.pop(self._subscription._id, None)
        with contextlib.suppress(nats.errors.Error, ValueError):
            await self._subscription.unsubscribe()


class Bus:
    """One process's connection. It reconnects for ever; once closed for good the process ends with it.

    `on_reconnect` holds what must be done again after an outage, in order; a failure there is logged and the next is
    tried.
    """

    def __init__(self, client: _Client, name: str) -> None:
        self.client = client
        self.name = name
        self.on_reconnect: list[Callable[[], Awaitable[object]]] = []
        self.reconnects = 0
        self._closing = False
        self._complained_at = float("-inf")

    @classmethod
    async def connect(cls, url: str, name: str) -> Bus:
        """Connect to one of the servers (separated by commas), trying until one is there."""
        bus = cls(_Client(), name)
        await bus.client.connect(
            [server.strip() for server in url.split(",")],
            name=f"cozy-{name}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]  # seconds, and a fraction works
            connect_timeout=CONNECT_SECONDS,
            ping_interval=PING_EVERY,
            max_outstanding_pings=2,
            allow_reconnect=True,
            pending_size=8 << 20,
            error_cb=bus._on_error,
            reconnected_cb=bus._on_reconnect,
            disconnected_cb=bus._on_disconnect,
            closed_cb=bus._on_closed,
        )
        return bus

    @property
    def connected(self) -> bool:
        """Whether messages flow right now."""
        return self.client.is_connected

    async def publish(self, subject: str, data: bytes, *, reply: str = "", msg_id: str | None = None) -> None:
        """Send without a receipt. Raises BusUnavailable where it cannot even be put on the way, and TooLarge."""
        headers = {"Nats-Msg-Id": msg_id} if msg_id else None
        try:
            await self.client.publish(subject, data, reply=reply, headers=headers)
        except nats.errors.MaxPayloadError as error:
            raise TooLarge(subject) from error
        except nats.errors.Error as error:
            raise BusUnavailable(type(error).__name__) from error

    async def ask(self, subject: str, data: bytes, timeout: float) -> bytes:
        """The answer to a question. Raises BusUnavailable after `timeout` s or when nobody is there, and TooLarge."""
        try:
            async with asyncio.timeout(timeout):
                answer = await self.client.request(subject, data, timeout=timeout)
        except nats.errors.MaxPayloadError as error:
            raise TooLarge(subject) from error
        except (nats.errors.Error, TimeoutError) as error:
            raise BusUnavailable(type(error).__name__) from error
        return answer.data

    async def store(self, subject: str, data: bytes, *, msg_id: str | None, budget: float = STORE_BUDGET) -> Receipt:
        """Publish into a stream until it says that it has it: the same message id on each try, so it is there once.

        Raises BusFull where the stream refuses, BusUnavailable when `budget` seconds have passed, TooLarge at once.
        """
        headers = {"Nats-Msg-Id": msg_id} if msg_id else None
        end = asyncio.get_running_loop().time() + budget
        while True:
            try:
                answer = await self.client.request(subject, data, timeout=STORE_SECONDS, headers=headers)
                receipt = read_receipt(answer.data)
            except nats.errors.MaxPayloadError as error:
                raise TooLarge(subject) from error
            except (nats.errors.Error, TimeoutError, NoStreamResponseError, APIError, msgspec.DecodeError) as error:
                if asyncio.get_running_loop().time() + RECONNECT_WAIT > end:
                    raise BusUnavailable(type(error).__name__) from error
                metrics.published_again()
                await asyncio.sleep(RECONNECT_WAIT)
                continue
            if receipt.error:
                code = receipt.error.get("err_code")
                raise (BusFull if code in STREAM_FULL else BusUnavailable)(f"JetStream refused with {code}")
            return receipt

    async def listen(self, subject: str, hear: Hear, queue: str = "") -> Listener:
        """Hear every message of a subject from now on. `hear(subject, data)` is called at once and must not block."""
        subscription = await self.client.subscribe(subject, queue=queue)
        self.client.hearing[subscription._id] = hear
        return Listener(self.client, subscription)

    async def take(self, subject: str, take: Take) -> Listener:
        """`listen` for those who need a message's headers or are to answer it. `take` must not block either."""
        subscription = await self.client.subscribe(subject)
        self.client.taking[subscription._id] = take
        return Listener(self.client, subscription)

    async def flush(self, timeout: float = 1.0) -> bool:
        """Wait until the server has seen what was sent so far, and we have heard what it had sent by then.

        Says whether that was so within `timeout` seconds: False at once where the bus is away.
        """
        if not self.connected:
            return False
        loop = asyncio.get_running_loop()
        end, answered = loop.time() + timeout, loop.create_future()
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            # nats-py's ping overtakes what is pending, and its sending swallows a cancellation: each has its limit.
            async with asyncio.timeout_at(end):
                await self.client._flush_pending(force_flush=True)
            async with asyncio.timeout_at(end):
                await self.client._send_ping(answered)
            # Not cancelled when it is given up: at an answer to nobody, however late, nats-py would stop reading.
            await asyncio.wait({answered}, timeout=end - loop.time())
        return answered.done()

    async def close(self) -> None:
        """Send what is pending and leave."""
        self._closing = True
        await self.flush()
        with contextlib.suppress(nats.errors.Error, OSError):  # the server is away, and what is pending goes with us
            await self.client.close()

    async def _on_error(self, error: Exception) -> None:
        # Must never raise: nats-py would stop reading and say nothing. An outage brings one error an attempt.
        now = time.monotonic()
        if now - self._complained_at > COMPLAIN_EVERY:
            self._complained_at = now
            log.warning("bus_error", error=type(error).__name__)

    async def _on_disconnect(self) -> None:
        if not self._closing:
            log.warning("bus_disconnected")

    async def _on_reconnect(self) -> None:
        self.reconnects += 1
        log.info("bus_reconnected", times=self.reconnects)
        for again in self.on_reconnect:
            try:
                await again()
            except Exception as error:
                log.error("bus_reconnect_step_failed", step=again.__qualname__, error=type(error).__name__)

    async def _on_closed(self) -> None:
        if not self._closing:
            # Nothing of ours works without the bus; a supervisor starts the process afresh.
            log.critical("bus_closed_for_good")
            sys.stdout.flush()
            os._exit(70)
