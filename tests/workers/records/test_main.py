"""The process: `python -m workers.records`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from ops.runtime import config as configuration
from ops.runtime.bus import Bus
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
    try:
        async with asyncio.timeout(30):
            while b'"event":"ready"' not in await process.stdout.readline():
                pass
            answered = codec.decode(await bus.ask(subjects.record_query("Ping"), codec.encode(Ping()), 5), Answer)
            assert answered.fault is None
            process.send_signal(signal.SIGTERM)
            await process.stdout.read()
            assert await process.wait() == 0
    finally:
        await bus.close()
        if process.returncode is None:  # it would answer other tests' questions
            process.kill()
            await process.wait()
