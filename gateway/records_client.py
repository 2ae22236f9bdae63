"""What the gateway asks of the records worker: accounts, sessions, messages, turns. It has no database of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

from ops.runtime.bus import Bus, BusUnavailable
from schemas import codec, subjects
from schemas.faults import StorageUnavailable, fault_from
from schemas.records import Answer, Query

T = TypeVar("T")

AGAIN_AFTER = 0.1
"""Seconds before a question that nobody took is asked again. Every question may be asked twice."""
NOTHING = type(None)
"""The kind of an answer that says nothing but "done"."""
_NIL = msgspec.Raw(codec.encode(None))


class Records:
    """The records worker, as seen from here.

    `bus` is called for each question: there is none until it has connected. `patience` is in seconds.
    """

    def __init__(self, bus: Callable[[], Bus | None], patience: float = 2.5) -> None:
        self._bus, self._patience = bus, patience

    async def ask(self, query: Query, kind: type[T]) -> T:
        """The answer to a query.

        Raises the fault that the worker answered with, or StorageUnavailable once the patience is at its end. Until
        then a worker that is just being restarted is waited for.
        """
        end = time.monotonic() + self._patience
        while True:
            try:
                return await self.ask_once(query, kind, end - time.monotonic())
            except BusUnavailable:
                if time.monotonic() + AGAIN_AFTER >= end:
                    raise StorageUnavailable() from None
            await asyncio.sleep(AGAIN_AFTER)

    async def ask_once(self, query: Query, kind: type[T], patience: float) -> T:
        """The same without a second try: raises BusUnavailable where nobody answered."""
        bus = self._bus()
        if bus is None or not bus.connected:
            raise BusUnavailable("not connected")
        subject = subjects.record_query(type(query).__name__)
        answer = codec.decode(await bus.ask(subject, codec.encode(query), patience), Answer)
        if answer.fault is not None:
            raise fault_from(answer.fault)
        return cast(T, codec.decoder(kind).decode(answer.value or _NIL))
