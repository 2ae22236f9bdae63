"""A gateway inside the test, on a free port: real HTTP in front, a real NATS behind, and a peer for records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import app
from gateway.callers import hash_of
from gateway.server import listening, server_for
from gateway.services import Services
from ops.local.embedded_nats import EmbeddedNats
from ops.runtime import config
from schemas.records import Caller
from tests.gateway.peers import RecordsPeer

KEY, ADMIN_KEY = "sk-of-a-user", "sk-of-an-admin"
USER = Caller(user_id="0193a8c0-0000-7000-8000-000000000001")
ADMIN = Caller(user_id="0193a8c0-0000-7000-8000-000000000002", role="admin")
AUTH = {"authorization": f"Bearer {KEY}"}
PERSONALITIES = {
    "default": "id: default\nname: Cozy\nprompt: You are Cozy.\n",
    "tutor": "id: tutor\nname: Tutor\ndescription: Teaches.\nprompt: You teach.\ntools: [clock]\n",
}


@dataclass
class Running:
    """A gateway that answers."""

    url: str
    services: Services
    http: aiohttp.ClientSession

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        """Status, headers and JSON of one request, sent with the user's key unless `headers` says otherwise."""
        options.setdefault("headers", AUTH)
        async with self.http.request(method, self.url + path, **options) as response:
            body = await response.json() if response.content_type == "application/json" else await response.text()
            return response.status, response.headers, body

    async def problem(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """What an error says of itself, with its status."""
        status, _, body = await self.call(method, path, **options)
        return {"status": status, **body["error"]}


@pytest.fixture(scope="session")
async def nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedNats]:
    """A NATS server for all tests of this package, where no stage but a peer's listens; nobody may kill it."""
    server = EmbeddedNats(tmp_path_factory.mktemp("nats"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def mortal_nats(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    """One for a test that kills it."""
    server = EmbeddedNats(tmp_path / "nats")
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def records(nats: EmbeddedNats) -> AsyncIterator[RecordsPeer]:
    """Somebody who answers for the records worker, and knows two keys."""
    peer = records_peer()
    await peer.open(nats.url)
    yield peer
    await peer.close()


def records_peer() -> RecordsPeer:
    """A peer, not connected yet, that knows a user and an admin."""
    peer = RecordsPeer()
    peer.callers = {hash_of(KEY.encode()): USER, hash_of(ADMIN_KEY.encode()): ADMIN}
    return peer


@pytest.fixture(scope="session")
def settings_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two personalities, every setting at its default."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "personalities").mkdir()
    for name, text in PERSONALITIES.items():
        (folder / "personalities" / f"{name}.yaml").write_text(text)
    return folder


@asynccontextmanager
async def running(nats_url: str, folder: Path, **environ: str) -> AsyncIterator[Running]:
    """A gateway with these settings, its bus not waited for."""
    environment = {"APP_ENV": "test", "NATS_URL": nats_url, "SCRIPTED_URL": "http://127.0.0.1:9", **environ}
    services = Services(config.load(environment, folder))
    server = server_for(app.create(services), services.config.api)
    listener = listening("127.0.0.1", 0)
    serving = asyncio.create_task(server.serve([listener]))
    async with aiohttp.ClientSession() as http:
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", services, http)
    services.draining.set()
    server.should_exit = True
    await serving


async def connected(gateway: Running) -> Running:
    """The gateway, once its bus is there."""
    async with asyncio.timeout(5):
        while not gateway.services.connected:  # noqa: ASYNC110 - the first connection has no event of its own
            await asyncio.sleep(0.01)
    return gateway


@pytest.fixture(scope="package")
async def gateway(nats: EmbeddedNats, settings_folder: Path) -> AsyncIterator[Running]:
    """A gateway with the settings of the environment `test`, connected. It ends with the last test of the gateway: its
    clocks would write their log lines into other tests' logs.
    """
    async with running(nats.url, settings_folder) as found:
        yield await connected(found)
