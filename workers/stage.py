"""How any stage runs: one process, its connections, its lease, its health, and the door its events come through."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import psycopg
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.contextvars import bound_contextvars

from ops.runtime import config as configuration
from ops.runtime import logs, metrics, topology
from ops.runtime.bus import Bus
from ops.runtime.config import Config
from ops.runtime.health import Health
from schemas import codec, subjects
from schemas.faults import EngineInternal, Fault
from schemas.streams import TURNS, ConsumerSpec
from workers.cancelling import end_all
from workers.consumer import PullLoop, fed_by_credits
from workers.delivery import CLAIM_AFTER, Later, deliver, unreadable
from workers.endings import Endings
from workers.leases import RENEWALS, Lease
from workers.stops import Stops
from workers.storage.arrivals import Arrivals
from workers.storage.database import Database
from workers.storage.turns import Turns
from workers.storage.upkeep import Upkeep

log = structlog.get_logger()


class StageBroker(NatsBroker):
    """FastStream on the process's own connection, so that there is one to configure and one to lose."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(logger=None, apply_types=False)
        self._bus = bus

    async def _connect(self) -> Client:
        self.config.connect(self._bus.client)
        return self._bus.client


class Stage:
    """One process of a stage. Made by `open`, run by `serve`."""

    def __init__(self, name: str, config: Config, bus: Bus, database: Database) -> None:
        self.name, self.config, self.bus, self.database = name, config, bus, database
        self.lease = Lease(database, bus, name, config.storage.lease)
        self.worker_id = self.lease.worker_id
        limit = config.security.concurrent_turns
        self.turns, self.arrivals, self.upkeep = Turns(database), Arrivals(database, limit), Upkeep(database, limit)
        self.endings = Endings(self.turns, self.arrivals, bus)
        self.stops = Stops(bus)
        self.health = Health(name, config.observability.health_host)
        self.broker = StageBroker(bus)
        self._loops: list[PullLoop] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.closing: list[Callable[[], Awaitable[None]]] = []

    @classmethod
    async def open(cls, name: str, *, uses_models: bool = False) -> Stage:
        """Read the configuration, start answering health questions, and connect.

        Raises ConfigError; for a stage that uses models also where no model server is configured.
        """
        config = configuration.load(os.environ)
        logs.configure(name, config)
        if uses_models:
            log.info("models", default=config.models.default.model, provider=config.models.default.provider)
        log.info("starting", config_version=config.version, config=config.summary)
        storage = config.storage
        database = await Database.open(
            storage.database_url, size=storage.pool_size, name=name, statement_timeout=storage.statement_timeout
        )
        bus = await Bus.connect(storage.nats_url, name)
        stage = cls(name, config, bus, database)
        stage.health.check("nats", stage._nats_answers)
        stage.health.check("database", stage._database_answers)
        await stage.health.serve(config.observability.health_port)
        return stage

    def on(self, spec: ConsumerSpec, kind: Any, work: Callable[[Any], Awaitable[None]], *, slots: int) -> None:
        """Do `work(event)` for every event of this consumer, at most `slots` at once, under the delivery policy."""
        decode = codec.decoder(kind).decode
        in_hand: set[bytes] = set()

        async def once(said: bytes, event: Any) -> None:
            # An event can come again while its first delivery is still at work here, and the lease is this process's.
            # Another event of the same turn is another matter: the next round's must not wait for this one's end.
            if said in in_hand:
                raise Later(self.config.storage.lease)
            in_hand.add(said)
            try:
                await work(event)
            finally:
                in_hand.discard(said)

        async def handle(message: Msg) -> None:
            try:
                event = decode(message.data)
            except msgspec.DecodeError as error:
                unreadable(message, self.name, error)
                await self._bury(message.data, message.metadata.sequence.stream)
                await message.term()
                return
            with bound_contextvars(turn_id=event.turn_id):
                poisoned = partial(self._poisoned, message.metadata.sequence.stream)
                await deliver(message, self.name, event, partial(once, message.data), poisoned)

        subscriber = self.broker.subscriber(
            spec.filter_subject,
            stream=JStream(TURNS.name, declare=False),
            durable=spec.stage,
            pull_sub=PullSub(batch_size=1),
            ack_policy=AckPolicy.MANUAL,
            decoder=_as_it_is,
        )
        subscriber(handle)
        self.lease.slots += slots
        alive = self.config.storage.lease / RENEWALS
        grace = self.config.app.drain_seconds
        self._loops.append(
            fed_by_credits(subscriber, self.bus, TURNS.name, spec.stage, slots=slots, alive=alive, grace=grace)
        )

    def holding(self, turn_id: str, epoch: int) -> contextlib.AbstractAsyncContextManager[None]:
        """Work on a claimed turn: left by any exception but Fenced, the claim is given back first."""
        return self.lease.holding(turn_id, epoch)

    def held_by_another(self, seconds: float) -> Later:
        """For a turn whose owner is alive for at least so long: raise it. No longer than a lease, whatever the clock of
        PostgreSQL has done meanwhile."""
        return Later(min(seconds, self.config.storage.lease) + CLAIM_AFTER)

    def answers(self, subject: str, answer: Callable[[Any], Awaitable[bytes]]) -> None:
        """Answer questions on a subject; of all processes of the stage one gets each."""
        self.broker.subscriber(subject, queue=self.name, decoder=_as_it_is)(answer)

    def also(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the events until the process stops."""
        self._tasks.append(asyncio.create_task(self._forever(task)))

    async def serve(self, stopping: asyncio.Event) -> None:
        """Work until asked to stop; then finish what runs, hand over what does not end in time, and leave."""
        # First of all others must know that we live, and before the loops ask, what they ask of must be there.
        self.bus.on_reconnect[:0] = [self.lease.renew, self._restore_streams]
        await self.lease.begin()
        await self.stops.open()
        await self.lease.renew()  # before the first claim, or its turns would seem to be nobody's
        self.also(self.lease.run)
        await self.broker.start()
        await self.bus.flush()  # ready is who can be asked: the server knows of every subscription
        self.health.ready = True
        log.info("ready")
        await stopping.wait()
        self.health.ready = False
        log.info("draining", in_hand=sum(loop.busy for loop in self._loops))
        for subscriber in self.broker.subscribers:
            await subscriber.stop()
        await end_all(self._tasks)
        for close in self.closing:
            await close()
        with contextlib.suppress(psycopg.Error):
            await self.lease.end()
        await self.health.close()
        await self.bus.close()
        await self.database.close()
        log.info("stopped")

    async def _forever(self, task: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await task()
            except Exception as error:
                log.warning("background_task_failed", task=task.__qualname__, error=type(error).__name__)
                await asyncio.sleep(1)

    async def _restore_streams(self) -> None:
        """NATS may have come back without its store."""
        storage = self.config.storage
        made = await topology.restore(self.bus, lease=storage.lease, replicas=storage.nats_replicas)
        if made:
            log.error("streams_restored", made=made)

    async def _poisoned(self, sequence: int, event: Any, error: Exception, deliveries: int) -> bool:
        # Where no row counts the failures, as of a turn that nobody can accept, every delivery counts.
        failures = await self.turns.count_failure(event.turn_id) or deliveries
        if failures < self.config.storage.poison_tries:
            return False
        await self._bury(codec.encode(event), sequence)
        fault = error if isinstance(error, Fault) else EngineInternal()
        await self.endings.fail(event.turn_id, fault.record)
        return True

    async def _bury(self, data: bytes, sequence: int) -> None:
        # By the message's place, not by its turn: one that was sent again and dies again is another letter.
        await self.bus.store(subjects.dead(self.name), data, msg_id=f"dead.{self.name}.{sequence}")
        metrics.dead_letter(self.name)
        log.error("dead_letter", stage=self.name)

    async def _nats_answers(self) -> dict[str, Any]:
        await self.bus.ask("$JS.API.INFO", b"", timeout=1)
        return {}

    async def _database_answers(self) -> dict[str, Any]:
        await self.database.ping()
        return {}


async def _as_it_is(message: NatsMessage) -> Msg:
    """FastStream's decoder: without its own type casting, what it returns is what the handler gets."""
    return message.raw_message
