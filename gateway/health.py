"""How the gateway is: `/livez` and `/readyz` for machines that start and stop it, `/health` for people and monitors."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from gateway.records_client import Records
from gateway.services import Services, services_of
from ops.runtime.bus import BusUnavailable
from schemas import codec, subjects
from schemas.engines import EnginesHealth
from schemas.faults import Fault
from schemas.records import Ping, Pong

PATIENCE = 1.0
"""Seconds a dependency has to answer. All are asked side by side."""
KEPT = 0.5
"""Seconds an answer is good for: whoever asks more often gets the one before, and the dependencies their peace."""

Status = Literal["ok", "degraded", "unusable"]
State = Literal["ok", "away", "unknown"]
SERVING: dict[Status, int] = {"ok": 200, "degraded": 200, "unusable": 503}


class Dependency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing the service stands on."""

    status: State
    latency_ms: float | None = None
    """Round trip, where it answered."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Whether chats can be had: `unusable` without bus or database, `degraded` where another part is missing."""

    status: Status
    dependencies: dict[str, Dependency]


def judged(dependencies: dict[str, Dependency]) -> Status:
    """What the state of the dependencies means for whoever wants to chat.

    Without the records worker known callers still chat (degraded), and the database is unknown, not away. Without a
    model server turns are accepted and their replies fail, or another provider answers: degraded.
    """
    if any(dependencies[name].status == "away" for name in ("nats", "database")):
        return "unusable"
    return "ok" if all(each.status == "ok" for each in dependencies.values()) else "degraded"


async def look(services: Services) -> Report:
    """Ask every dependency, side by side, for a second at most."""
    nats, (records, database), engines = await asyncio.gather(
        _nats(services), _records(services.records), _engines(services)
    )
    dependencies = {"nats": nats, "records": records, "database": database, **engines}
    return Report(status=judged(dependencies), dependencies=dependencies)


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 2)


async def _nats(services: Services) -> Dependency:
    began = time.perf_counter()
    try:
        await services.check()
    except (BusUnavailable, Fault):
        return Dependency(status="away")
    return Dependency(status="ok", latency_ms=_since(began))


async def _records(records: Records) -> tuple[Dependency, Dependency]:
    """The records worker, and the database behind it, which only the worker can see."""
    began = time.perf_counter()
    try:
        pong = await records.ask_once(Ping(), Pong, PATIENCE)
    except BusUnavailable:
        return Dependency(status="away"), Dependency(status="unknown")
    except Fault:
        return Dependency(status="ok", latency_ms=_since(began)), Dependency(status="away")
    return (
        Dependency(status="ok", latency_ms=_since(began)),
        Dependency(status="ok", latency_ms=round(pong.database_ms, 2)),
    )


async def _engines(services: Services) -> dict[str, Dependency]:
    """The generation workers, and each model server as they see it: `engines.<provider>`."""
    began = time.perf_counter()
    try:
        found = codec.decode(await services.bus.ask(subjects.ENGINES_HEALTH, b"", PATIENCE), EnginesHealth)
    except (BusUnavailable, Fault):
        return {"generation": Dependency(status="away")}
    told = {"generation": Dependency(status="ok", latency_ms=_since(began))}
    for name, health in found.providers.items():
        status: State = "ok" if health.ok else "away"
        told[f"engines.{name}"] = Dependency(status=status, latency_ms=health.latency_ms)
    return told


class Looking:
    """The last look and the running one, shared by all who ask."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._task: asyncio.Task[Report] | None = None
        self._until = 0.0

    async def look(self) -> Report:
        """How things are now, or were half a second ago."""
        if self._task is None or (self._task.done() and time.monotonic() > self._until):
            self._task = asyncio.create_task(look(self._services))
            self._task.add_done_callback(self._keep)
        return await asyncio.shield(self._task)

    def _keep(self, _task: asyncio.Task[Report]) -> None:
        self._until = time.monotonic() + KEPT


def health_route(services: Services) -> HTTPRouteHandler:
    """`GET /health`, for everyone."""
    looking = Looking(services)

    @get("/health", summary="Whether the service can be used", security=[], tags=["operation"])
    async def health() -> Response[Report]:
        """Tells usable, degraded and unusable (503) apart, and names the dependency."""
        report = await looking.look()
        return Response(report, status_code=SERVING[report.status])

    return health


@get("/livez", include_in_schema=False)
async def livez() -> dict[str, str]:
    """The process runs and its loop turns."""
    return {"status": "ok"}


@get("/readyz", include_in_schema=False)
async def readyz(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    """Whether requests are welcome here: the bus is connected and nobody has asked the process to stop."""
    services = services_of(request)
    if services.draining.is_set():
        return Response({"status": "draining"}, status_code=503)
    if not services.connected:
        return Response({"status": "the bus is not connected"}, status_code=503)
    return Response({"status": "ok"})
