"""The process: `python -m workers.records`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from ops.runtime import config as configuration
from ops.runtime.bus import Bus, BusUnavailable
from schemas import codec, subjects
from schemas.faults import AuthInvalid
from schemas.records import Answer, FindCaller, Ping
from tests.workers.storage.rows import key_hash_of
from workers.records.__main__ import records_of
from workers.records.last_used import LastUsed
from workers.stage import Stage
from workers.storage.callers import Callers
from workers.storage.database import Database

DEV = FindCaller(key_hash=key_hash_of("sk-cozy-dev"))


async def test_development_takes_the_development_keys(database: Database, bus: Bus) -> None:
    config = configuration.load({"APP_ENV": "development"})
    records = records_of(Stage("records", config, bus, database), LastUsed(Callers(database)))
    assert (await records.find_caller(DEV)).role == "user"


@pytest.mark.parametrize("environment", ["production", "test"])
async def test_no_other_environment_does(database: Database, bus: Bus, environment: str) -> None:
    config = configuration.load({"APP_ENV": environment})
    records = records_of(Stage("records", config, bus, database), LastUsed(Callers(database)))
    with pytest.raises(AuthInvalid):
        await records.find_caller(DEV)


async def test_it_answers_until_it_is_told_to_stop(nats_url: str, database_url: str) -> None:
    here = {"APP_ENV": "test", "NATS_URL": nats_url, "DATABASE_URL": database_url, "HEALTH_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "workers.records", env=os.environ | here, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    bus = await Bus.connect(nats_url, "asker")
    async with asyncio.timeout(30):
        while b'"event":"ready"' not in await process.stdout.readline():
            pass
        assert await _pinged(bus) is not None
        process.send_signal(signal.SIGTERM)
        await process.stdout.read()
        assert await process.wait() == 0
    await bus.close()


async def _pinged(bus: Bus) -> Answer | None:
    """An answer; a process that says it is ready may still be a moment ahead of the server's knowing."""
    for _ in range(10):
        try:
            data = await bus.ask(subjects.record_query("Ping"), codec.encode(Ping()), timeout=1)
        except BusUnavailable:
            continue
        return codec.decode(data, Answer)
    return None
