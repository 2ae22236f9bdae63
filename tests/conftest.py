"""The real servers that tests run on: one NATS and one PostgreSQL a run, a database of its own for each test.

A server that does not start fails the test that asked for it; nothing is skipped.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from ops.commands.release import migrate
from ops.local.embedded_nats import EmbeddedNats
from ops.local.embedded_postgres import EmbeddedPostgres
from ops.runtime import topology
from ops.runtime.bus import Bus
from schemas.streams import STREAMS
from workers.storage.database import Database

TOGETHER = ("journeys",)
"""Folders whose tests share a running system, and so a process where `make test` runs several."""
FIRST = ("journeys", "drills")
"""Folders that take longest and wait most: what else there is runs beside them."""
TEMPLATE = "migrated"
LEASE_SECONDS = 10.0
NUMBERS = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For pytest-xdist: which tests stay together, and in which order they are handed out."""
    for item in items:
        folders = item.path.relative_to(item.config.rootpath).parts
        together = next((name for name in TOGETHER if name in folders), "/".join(folders))
        item.add_marker(pytest.mark.xdist_group(together))
    items.sort(key=lambda item: not any(f"/{name}/" in item.nodeid for name in FIRST))


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Where this run's servers live; pytest's own folders are closed to the user that root's PostgreSQL runs as."""
    path = Path(tempfile.mkdtemp(prefix="cozy-test-")).resolve()
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
async def embedded_nats(servers_folder: Path) -> AsyncIterator[EmbeddedNats]:
    """The NATS server of this run. Tests share it: a test that kills its server brings its own."""
    server = EmbeddedNats(servers_folder)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def nats_url(embedded_nats: EmbeddedNats) -> str:
    """Where NATS is. Streams and consumers are made by the fixture `bus`."""
    return embedded_nats.url


@pytest.fixture(scope="session")
async def streams(nats_url: str) -> None:
    """Streams and consumers as `python -m ops release` makes them."""
    bus = await Bus.connect(nats_url, "test-release")
    await topology.ensure(bus, lease=LEASE_SECONDS)
    await bus.close()


@pytest.fixture
async def bus(nats_url: str, streams: None) -> AsyncIterator[Bus]:
    """A connection to NATS whose streams are there and empty."""
    bus = await Bus.connect(nats_url, "test")
    jetstream = bus.client.jetstream(timeout=5)
    for stream in STREAMS:
        await jetstream.purge_stream(stream.name)
    yield bus
    await bus.close()


@pytest.fixture(scope="session")
async def postgres(servers_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """The PostgreSQL server of this run, with the migrated database that each test's own is a copy of."""
    server = EmbeddedPostgres(servers_folder, fsync=False)
    await server.start()
    await asyncio.to_thread(migrate, await server.create_database(TEMPLATE))
    yield server
    await server.stop()


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A fresh database with today's tables and nothing in them; gone after the test."""
    name = f"test_{next(NUMBERS)}"
    yield await postgres.create_database(name, TEMPLATE)
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the test's own database."""
    database = await Database.open(database_url, size=4, name="test")
    yield database
    await database.close()
