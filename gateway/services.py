"""What the handlers of one gateway process share: configuration, the bus, the records worker, the known callers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import structlog
from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State

from gateway.admission import Admission
from gateway.callers import Callers
from gateway.joining import Shown
from gateway.readers import Readers
from gateway.records_client import Records
from gateway.reply_reader import ReplyReader
from gateway.storage_clock import StorageClock
from ops.runtime.bus import Bus
from ops.runtime.config import Config
from schemas import subjects
from schemas.faults import EngineOverloaded, StorageUnavailable
from schemas.ids import new_id
from schemas.records import Caller, FindCaller, GetReply, StoredReply
from schemas.turns import ENDS

log = structlog.get_logger()

JETSTREAM = "$JS.API.INFO"
"""Where NATS itself answers, once it can also store."""
CONNECT_AGAIN_AFTER = 1.0
"""Seconds between two attempts to reach a bus that was never reached."""

LOOKS_AT_ONCE = 8
"""Clients that come back at the same time and whose turns are looked up at once. The others wait here, where it takes
no patience of the records worker."""

Asked = Request[Caller, Any, State]
"""A request behind `known_caller`: `user` is its `Caller`."""


class Services:
    """One gateway's connections and memory. Requests are served from the first moment; what needs the bus is refused
    until it is there."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.draining = asyncio.Event()
        """Set once the process is told to stop: open streams have `api.stream_grace` seconds to end."""
        self.records = Records(lambda: self._bus, config.api.records_timeout)
        self.clock = StorageClock(self.records)
        self.callers = Callers(self._find_caller, config.api.caller_cache_ttl, config.api.caller_stale_ttl)
        self.gateway_id = new_id()
        self._bus: Bus | None = None
        self._admission: Admission | None = None
        self.readers = Readers()
        self._over = False
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)

    @property
    def admission(self) -> Admission:
        """How turns are asked for. Raises StorageUnavailable before the first connection."""
        if self._admission is None:
            raise StorageUnavailable("The message bus is not connected yet. Try again shortly.")
        return self._admission

    def reader(self, turn_id: str, user_id: str, shard: int) -> ReplyReader:
        """A reader of one turn's reply, not open yet. Raises EngineOverloaded once the grace of a stop is over."""
        if self._over:
            raise EngineOverloaded("The gateway is restarting. Ask again: another one answers.")
        return self.readers.make(self.bus, self.records, turn_id=turn_id, user_id=user_id, shard=shard)

    async def late_reader(self, turn_id: str, user_id: str) -> tuple[ReplyReader, StoredReply, Sequence[Shown]]:
        """An open reader of a turn that was asked for before, what PostgreSQL says of it, and what that shows.

        Raises NotFound for another's turn, EngineOverloaded where this gateway is about to end.
        """
        if self.draining.is_set():
            raise EngineOverloaded("The gateway is restarting. Ask again: another one answers.")
        async with self._looks:
            stored = await self.records.ask(GetReply(user_id=user_id, turn_id=turn_id), StoredReply)
        reader = self.readers.make(
            self.bus, self.records, turn_id=turn_id, user_id=user_id, shard=stored.shard, resumable=True
        )
        if stored.state not in ENDS:
            await reader.open(late=True)
        if self.draining.is_set():
            reader.send_away()
        return reader, stored, reader.come_late(stored)

    def end_resumable(self) -> None:
        """The gateway is told to stop: its clients that can go on elsewhere are let go at once."""
        self.readers.end_resumable()

    def end_readers(self) -> None:
        """The grace of a stopping gateway is over: tell every open stream where its reply can be read on."""
        self._over = True  # a connection that was kept may still ask for a turn, and nobody would end its stream
        self.readers.end_all()

    @property
    def bus(self) -> Bus:
        """The bus. Raises StorageUnavailable before the first connection; later it may be away and come back."""
        if self._bus is None:
            raise StorageUnavailable("The message bus is not connected yet. Try again shortly.")
        return self._bus

    @property
    def connected(self) -> bool:
        """Whether the bus carries messages right now."""
        return self._bus is not None and self._bus.connected

    async def check(self) -> dict[str, Any]:
        """Raises StorageUnavailable or BusUnavailable where the bus does not answer: a readiness check."""
        await self.bus.ask(JETSTREAM, b"", timeout=1.0)
        return {}

    async def open(self) -> None:
        """Connect, trying for ever, and hear of revoked keys from then on."""
        while self._bus is None:
            try:
                await self._listen_on(await Bus.connect(self.config.storage.nats_url, "gateway"))
            except Exception as error:
                log.warning("bus_not_reached", error=type(error).__name__, again_in=CONNECT_AGAIN_AFTER)
                await asyncio.sleep(CONNECT_AGAIN_AFTER)
        log.info("bus_connected")

    async def _listen_on(self, bus: Bus) -> None:
        admission = Admission(bus, self.gateway_id, self.config.storage.shards, self.clock)
        try:
            await bus.listen(subjects.CALLERS_REVOKED, self.callers.hear_revoked)
            await admission.open()
        except BaseException:
            await bus.close()
            raise
        bus.on_reconnect += [self._doubt_callers, self.readers.doubt]
        self._bus, self._admission = bus, admission

    async def close(self) -> None:
        """Leave the bus."""
        if self._bus is not None:
            await self._bus.close()

    async def _doubt_callers(self) -> None:
        self.callers.doubt()

    async def _find_caller(self, key_hash: str) -> Caller:
        return await self.records.ask(FindCaller(key_hash=key_hash), Caller)


@contextlib.asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[None]:
    """The services from the start of the app to its end; connecting goes on while requests are already served."""
    services = cast(Services, app.state["services"])
    opening = asyncio.create_task(services.open(), name="bus-connect")
    clock = asyncio.create_task(services.readers.tell_time(), name="readers-clock")
    storage_clock = asyncio.create_task(services.clock.run(), name="storage-clock")
    try:
        yield
    finally:
        opening.cancel()
        clock.cancel()
        storage_clock.cancel()
        await asyncio.gather(opening, clock, storage_clock, return_exceptions=True)
        await services.close()


def services_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Services:
    """The services of the app that serves this connection."""
    return cast(Services, connection.app.state["services"])
