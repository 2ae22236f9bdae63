"""A records worker inside the test: real NATS, real PostgreSQL, FastStream between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import pytest

from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.faults import FaultRecord
from schemas.records import Answer
from workers.endings import Endings
from workers.records.callers import CallerDesk
from workers.records.handlers import Handler, Records
from workers.records.last_used import LastUsed
from workers.records.subscribing import AT_ONCE, subscribe
from workers.stage import StageBroker
from workers.stopping import Stopping
from workers.storage.arrivals import Arrivals
from workers.storage.callers import Callers
from workers.storage.database import Database
from workers.storage.sessions import Sessions
from workers.storage.turns import Turns
from workers.storage.turns_read import TurnsRead

T = TypeVar("T")


class Asker:
    """Asks the records worker as the gateway does."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def answer(self, question: Any) -> Answer:
        data = await self.bus.ask(subjects.record_query(type(question).__name__), codec.encode(question), timeout=5)
        return codec.decode(data, Answer)

    async def value(self, question: Any, kind: type[T]) -> T:
        answered = await self.answer(question)
        assert answered.fault is None, answered.fault
        return codec.decode(bytes(answered.value or b""), kind)

    async def fault(self, question: Any) -> FaultRecord:
        answered = await self.answer(question)
        assert answered.fault is not None
        return answered.fault


def records_on(database: Database, bus: Bus, *, dev_keys: bool = False) -> Records:
    """What answers questions from this database."""
    callers = Callers(database)
    desk = CallerDesk(callers, LastUsed(callers), dev_keys=dev_keys)
    turns = Turns(database)
    stopping = Stopping(turns, Endings(turns, Arrivals(database), bus), bus)
    return Records(desk, Sessions(database), TurnsRead(database), stopping)


async def started(bus: Bus, handlers: Mapping[type[Any], Handler], at_once: int = AT_ONCE) -> StageBroker:
    """A records worker that hears: the server knows of its subscriptions."""
    broker = StageBroker(bus)
    subscribe(broker, handlers, at_once)
    await broker.start()
    await bus.flush()
    return broker


async def stop(broker: StageBroker) -> None:
    """Stop it as the process does."""
    for subscriber in broker.subscribers:
        await subscriber.stop()


@pytest.fixture
async def broker(bus: Bus, database: Database) -> AsyncIterator[StageBroker]:
    """A running records worker."""
    broker = await started(bus, records_on(database, bus).handlers())
    yield broker
    await stop(broker)


@pytest.fixture
async def asker(broker: StageBroker, nats_url: str) -> AsyncIterator[Asker]:
    """Somebody else who asks it."""
    bus = await Bus.connect(nats_url, "asker")
    yield Asker(bus)
    await bus.close()
