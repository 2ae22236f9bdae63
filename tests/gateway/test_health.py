"""Health: usable, degraded and unusable told apart, the dependency named, within about a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import health
from gateway.health import Dependency, judged
from ops.local.embedded_nats import EmbeddedNats
from schemas.engines import EngineHealth, EnginesHealth
from schemas.faults import StorageUnavailable
from schemas.records import Ping, Pong
from tests.gateway.conftest import Running, connected, records_peer, running
from tests.gateway.peers import EnginesPeer, RecordsPeer


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "KEPT", 0.0)


@pytest.fixture
async def engines(nats: EmbeddedNats) -> AsyncIterator[EnginesPeer]:
    """Generation workers whose only model server is well."""
    peer = EnginesPeer(scripted=EngineHealth(ok=True, latency_ms=1.0))
    await peer.open(nats.url)
    yield peer
    await peer.close()


def states(nats: Any, records: Any, database: Any) -> dict[str, Dependency]:
    return {
        "nats": Dependency(status=nats),
        "records": Dependency(status=records),
        "database": Dependency(status=database),
    }


@pytest.mark.parametrize(("found", "status"), [
    (("ok", "ok", "ok"), "ok"),
    (("ok", "away", "unknown"), "degraded"),
    (("ok", "ok", "away"), "unusable"),
    (("away", "away", "unknown"), "unusable"),
])  # fmt: skip
def test_what_is_missing_decides_what_can_be_had(found: tuple[str, str, str], status: str) -> None:
    assert judged(states(*found)) == status


async def test_all_is_well(gateway: Running, records: RecordsPeer, engines: EnginesPeer) -> None:
    records.answers[Ping] = lambda _: Pong(database_ms=1.25)
    status, _, body = await gateway.call("GET", "/health", headers={})
    assert (status, body["status"]) == (200, "ok")
    assert set(body["dependencies"]) == {"nats", "records", "database", "generation", "engines.scripted"}
    assert body["dependencies"]["database"] == {"status": "ok", "latency_ms": 1.25}
    assert body["dependencies"]["nats"]["latency_ms"] > 0


async def test_a_model_server_that_is_away_is_named(
    gateway: Running, records: RecordsPeer, engines: EnginesPeer
) -> None:
    records.answers[Ping] = lambda _: Pong(database_ms=1.25)
    engines.said = EnginesHealth(providers={"ollama": EngineHealth(ok=False, code="ENGINE_TIMEOUT")})
    status, _, body = await gateway.call("GET", "/health", headers={})
    assert (status, body["status"]) == (200, "degraded")
    assert body["dependencies"]["engines.ollama"] == {"status": "away"}


async def test_without_a_generation_worker_it_is_degraded(gateway: Running, records: RecordsPeer) -> None:
    records.answers[Ping] = lambda _: Pong(database_ms=1.25)
    _, _, body = await gateway.call("GET", "/health", headers={})
    assert (body["status"], body["dependencies"]["generation"]) == ("degraded", {"status": "away"})


async def test_a_database_that_is_away_makes_it_unusable(gateway: Running, records: RecordsPeer) -> None:
    def refuse(_: Any) -> None:
        raise StorageUnavailable

    records.answers[Ping] = refuse
    status, _, body = await gateway.call("GET", "/health", headers={})
    assert (status, body["status"]) == (503, "unusable")
    assert body["dependencies"]["database"] == {"status": "away"}
    assert body["dependencies"]["records"]["status"] == "ok"


async def test_a_records_worker_that_hangs_degrades_and_is_waited_for_a_second(
    gateway: Running, records: RecordsPeer
) -> None:
    records.silent = True
    began = time.monotonic()
    status, _, body = await gateway.call("GET", "/health", headers={})
    assert time.monotonic() - began < 1.5
    assert (status, body["status"]) == (200, "degraded")
    assert body["dependencies"]["records"] == {"status": "away"}
    assert body["dependencies"]["database"] == {"status": "unknown"}


async def test_many_who_ask_at_once_share_one_look(gateway: Running, records: RecordsPeer) -> None:
    records.answers[Ping] = lambda _: Pong(database_ms=1.0)
    await asyncio.gather(*(gateway.call("GET", "/health", headers={}) for _ in range(20)))
    assert records.asked["Ping"] < 20


async def test_before_the_bus_the_gateway_lives_and_is_not_ready(settings_folder: Path) -> None:
    async with running("nats://127.0.0.1:1", settings_folder) as gateway:
        assert (await gateway.call("GET", "/livez", headers={}))[0] == 200
        assert (await gateway.call("GET", "/readyz", headers={}))[0] == 503
        status, _, body = await gateway.call("GET", "/health", headers={})
        assert (status, body["dependencies"]["nats"]) == (503, {"status": "away"})


async def test_a_gateway_told_to_stop_is_not_ready(nats: EmbeddedNats, settings_folder: Path) -> None:
    async with running(nats.url, settings_folder) as gateway:
        await connected(gateway)
        assert (await gateway.call("GET", "/readyz", headers={}))[0] == 200
        gateway.services.draining.set()
        assert (await gateway.call("GET", "/readyz", headers={}))[0] == 503


async def test_both_public_endpoints_can_be_closed(nats: EmbeddedNats, settings_folder: Path) -> None:
    closed = {"COZY_API__HEALTH_ENABLED": "false", "COZY_API__DOCS_ENABLED": "false"}
    async with running(nats.url, settings_folder, **closed) as gateway:
        for path in ("/health", "/docs", "/docs/openapi.json", "/"):
            assert (await gateway.problem("GET", path, headers={}))["code"] == "RESOURCE_NOT_FOUND"


async def test_an_outage_of_the_bus_is_a_pause_and_puts_known_callers_in_doubt(
    mortal_nats: EmbeddedNats, settings_folder: Path
) -> None:
    peer = records_peer()
    await peer.open(mortal_nats.url)
    async with running(mortal_nats.url, settings_folder) as gateway:
        await connected(gateway)
        assert (await gateway.call("GET", "/v1/models"))[0] == 200
        await mortal_nats.kill()
        async with asyncio.timeout(5):
            while gateway.services.connected:  # noqa: ASYNC110 - losing the connection has no event of its own
                await asyncio.sleep(0.01)
        assert (await gateway.call("GET", "/v1/models"))[0] == 200
        assert (await gateway.call("GET", "/health", headers={}))[2]["dependencies"]["nats"] == {"status": "away"}
        peer.callers.clear()
        await mortal_nats.start()
        await connected(gateway)
        async with asyncio.timeout(10):
            while (await gateway.call("GET", "/v1/models"))[0] != 401:
                peer.heard.clear()
                await peer.heard.wait()
    await peer.close()
