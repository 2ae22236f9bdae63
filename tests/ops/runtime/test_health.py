"""The health server, asked over HTTP as a kubelet or Prometheus asks it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ops.runtime import metrics
from ops.runtime.health import CHECK_SECONDS, Health
from schemas.faults import StorageUnavailable

CANARY = "canary-4711"


class Served:
    """A health server on a free port."""

    def __init__(self, health: Health, port: int, client: aiohttp.ClientSession) -> None:
        self.health, self.port, self.client = health, port, client

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        async with self.client.request(method, f"http://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.text()

    async def ready(self) -> tuple[int, dict[str, Any]]:
        async with self.client.get(f"http://127.0.0.1:{self.port}/readyz") as response:
            return response.status, await response.json()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    health = Health("records")
    health.ready = True
    async with aiohttp.ClientSession() as client:
        yield Served(health, await health.serve(0), client)
    await health.close()


async def fine() -> dict[str, Any]:
    return {"database_ms": 0.3}


async def broken() -> None:
    raise StorageUnavailable(CANARY)


async def test_a_living_process_says_so(served: Served) -> None:
    status, body = await served.get("/livez")
    assert status == 200
    assert '"status":"ok"' in body


async def test_a_process_whose_checks_pass_is_ready(served: Served) -> None:
    served.health.check("database", fine)
    status, body = await served.ready()
    assert (status, body["status"], body["process"]) == (200, "ok", "records")
    assert (body["checks"]["database"]["ok"], body["checks"]["database"]["database_ms"]) == (True, 0.3)


async def test_a_failing_check_is_named_without_its_words(served: Served) -> None:
    served.health.check("database", broken)
    served.health.check("nats", fine)
    status, body = await served.ready()
    assert status == 503
    assert body["checks"]["database"] == {"ok": False, "error": "schemas.faults.StorageUnavailable"}
    assert body["checks"]["nats"]["ok"]


async def test_a_hanging_check_fails_in_time_and_is_not_asked_again_meanwhile(served: Served) -> None:
    asked = 0
    release = asyncio.Event()

    async def hanging() -> None:
        nonlocal asked
        asked += 1
        await release.wait()

    served.health.check("nats", hanging)
    began = time.monotonic()
    answers = [await served.ready(), await served.ready()]
    assert time.monotonic() - began < 2 * CHECK_SECONDS + 0.9
    assert [(status, body["checks"]["nats"]["error"]) for status, body in answers] == [
        (503, "no answer within 1 s")
    ] * 2
    assert asked == 1
    release.set()
    assert (await served.ready())[0] == 200


async def test_checks_are_asked_side_by_side(served: Served) -> None:
    both = asyncio.Barrier(2)

    async def meeting() -> None:
        await both.wait()

    served.health.check("nats", meeting)
    served.health.check("database", meeting)
    assert (await served.ready())[0] == 200


async def test_a_process_that_is_about_to_end_is_not_ready_and_alive(served: Served) -> None:
    served.health.ready = False
    assert (await served.ready())[0] == 503
    assert (await served.get("/livez"))[0] == 200


async def test_metrics_are_served_in_prometheus_form(served: Served) -> None:
    metrics.redelivered("health_test")
    status, body = await served.get("/metrics")
    assert status == 200
    assert 'cozy_redeliveries_total{stage="health_test"} 1.0' in body


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/livez?x=1", 200), ("POST", "/livez", 405)]
)
async def test_other_questions_get_the_status_that_fits(served: Served, method: str, path: str, status: int) -> None:
    assert (await served.get(path, method))[0] == status


async def test_a_head_question_gets_no_body(served: Served) -> None:
    assert await served.get("/livez", "HEAD") == (200, "")


@pytest.mark.parametrize("noise", [b"\r\n\r\n", b"hello\r\n\r\n", b"x" * 20_000, b"\xff\xfe\r\n\r\n", b""])
async def test_noise_ends_its_own_connection_and_no_other(served: Served, noise: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(noise)
    writer.write_eof()
    with contextlib.suppress(ConnectionError):  # a server that leaves noise unread resets the connection
        assert await reader.read() == b""
    writer.close()
    assert (await served.get("/livez"))[0] == 200


async def test_a_port_that_is_taken_is_an_error(served: Served) -> None:
    with pytest.raises(OSError, match="in use"):
        await Health("other").serve(served.port)


async def test_a_closed_server_answers_nobody(served: Served) -> None:
    await served.health.close()
    with pytest.raises(aiohttp.ClientError):
        await served.get("/livez")
