"""Reads back what a stream has stored of one subject, in batches, without making a consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import nats.errors

from ops.runtime.bus import Bus, BusUnavailable

BATCH = 1000
BATCH_BYTES = 4 << 20
"""What one batch may bring, but for a single larger message. A server drops who is sent too much at once."""
WAIT_SECONDS = 2.0
_STATUS = b"NATS/1.0 "
_SEQUENCE = b"\r\nNats-Sequence: "
_PENDING = b"\r\nNats-Num-Pending: "


class Batch(msgspec.Struct, frozen=True):
    """Stored messages as (sequence, data), oldest first. `more`: whether the stream has others behind them."""

    messages: list[tuple[int, bytes]]
    more: bool


async def replay(bus: Bus, stream: str, subject: str, start: int = 1) -> AsyncIterator[tuple[int, bytes]]:
    """Every stored message of the subject from sequence `start` on, as (sequence, data), oldest first.

    Raises BusUnavailable where the stream does not answer in time.
    """
    more = True
    while more:
        batch = await read_batch(bus, stream, subject, start)
        for sequence, data in batch.messages:
            start = sequence + 1
            yield sequence, data
        more = batch.more and bool(batch.messages)


async def read_batch(bus: Bus, stream: str, subject: str, start: int = 1, max_bytes: int = BATCH_BYTES) -> Batch:
    """The stored messages of the subject from sequence `start` on, as many as a batch holds.

    By JetStream's batched direct get (NATS ADR-31), its answers read by the bus's short way: a reply is read back
    frame by frame. Raises BusUnavailable where the stream does not answer in time.
    """
    taking = _Taking()
    inbox = bus.client.new_inbox()
    body = {"seq": start, "next_by_subj": subject, "batch": BATCH, "max_bytes": max_bytes}
    try:
        listener = await bus.take(inbox, taking.take)
        try:
            await bus.client.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(body), reply=inbox)
            status = await taking.ended()
        finally:
            await listener.close()
    except nats.errors.Error as error:
        raise BusUnavailable(type(error).__name__) from error
    code = status[len(_STATUS) : len(_STATUS) + 3]
    if code not in (b"204", b"404"):
        raise BusUnavailable(f"direct get answered {code.decode(errors='replace')}")
    return Batch(taking.messages, code == b"204" and (_number(status, _PENDING) or 0) > 0)


class _Taking:
    """One batch as it comes in; it ends with a message that has a status and no data."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self._end: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def take(self, reply: bytes, headers: bytes, data: bytes) -> None:
        sequence = _number(headers, _SEQUENCE)
        if sequence is not None:
            self.messages.append((sequence, data))
        elif not self._end.done():
            self._end.set_result(headers)

    async def ended(self) -> bytes:
        """The status it ended with. Raises BusUnavailable when nothing has come for a while."""
        seen = -1
        while seen < len(self.messages):
            seen = len(self.messages)
            await asyncio.wait((self._end,), timeout=WAIT_SECONDS)
            if self._end.done():
                return self._end.result()
        raise BusUnavailable("the stream does not answer")


def _number(headers: bytes, name: bytes) -> int | None:
    begin = headers.find(name)
    if begin < 0:
        return None
    begin += len(name)
    return int(headers[begin : headers.index(b"\r\n", begin)])
