"""Make the database and the NATS server match this version of the code. Run before all else; safe to repeat."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config as AlembicConfig

from ops.runtime import config as configuration
from ops.runtime import topology
from ops.runtime.bus import Bus

MIGRATIONS = Path(__file__).parents[2] / "migrations"
CONNECT_SECONDS = 30


def migrate(database_url: str) -> None:
    """Bring the schema to the newest revision. Raises SQLAlchemy's errors where the database cannot be reached."""
    settings = AlembicConfig()
    settings.set_main_option("script_location", str(MIGRATIONS))
    settings.attributes["database_url"] = database_url
    command.upgrade(settings, "head")


async def make_streams(nats_url: str, lease: float, replicas: int) -> list[str]:
    """Bring streams and consumers to this version; names the streams that were made.

    Raises TimeoutError where NATS cannot be reached, and topology.NotTaken.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        bus = await Bus.connect(nats_url, "release")
    try:
        return await topology.ensure(bus, lease=lease, replicas=replicas)
    finally:
        await bus.close()


def main(argv: list[str]) -> int:
    """`python -m ops release`"""
    if argv:
        print("release takes no arguments", file=sys.stderr)
        return 2
    try:
        config = configuration.load(os.environ)
    except configuration.ConfigError as error:
        print(error, file=sys.stderr)
        return 78
    try:
        psycopg.connect(config.storage.database_url, connect_timeout=CONNECT_SECONDS).close()
        migrate(config.storage.database_url)
        storage = config.storage
        made = asyncio.run(make_streams(storage.nats_url, storage.lease, storage.nats_replicas))
    except psycopg.OperationalError as error:
        print(f"release: the database cannot be reached: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except TimeoutError:
        print(f"release: NATS cannot be reached: no answer within {CONNECT_SECONDS} s", file=sys.stderr)
        return 1
    except topology.NotTaken as refusal:
        print(f"release: NATS did not take {refusal}; see ops/runbooks/nats.md", file=sys.stderr)
        return 1
    print(f"database: at the newest revision; streams made: {', '.join(made) or 'none, all were there'}")
    return 0
