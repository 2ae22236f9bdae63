"""What the operators' commands have in common: where the servers are, a door to each, and how a command ends."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import nats
import nats.errors
import psycopg
from nats.aio.client import Client

from ops.local.launch_settings import PROJECT
from ops.local.run_file import read_run_file
from workers.storage.database import Database

NATS_SECONDS = 3
NOT_FOUND = 3
"""The exit code of a command that looked, and found that what was named is not there."""


class CannotRun(Exception):
    """The command could not be carried out. The message is for the person at the terminal."""


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers are; empty where nothing says so."""

    database_url: str
    nats_url: str


def find_addresses(environ: Mapping[str, str]) -> Addresses:
    """From DATABASE_URL and NATS_URL, or else from what `make run` lists in DATA_DIR/run.json. Raises CannotRun."""
    path = Path(environ.get("DATA_DIR") or PROJECT / ".data").expanduser() / "run.json"
    try:
        running = {entry.name: entry.url for entry in read_run_file(path)}
    except (msgspec.DecodeError, OSError) as error:
        raise CannotRun(f"{path} cannot be read: {type(error).__name__}") from None
    database_url = environ.get("DATABASE_URL") or running.get("postgres", "")
    if not database_url:
        raise CannotRun(
            f"no database: DATABASE_URL is not set, and {path} lists none. Start `make run`, or set DATABASE_URL."
        )
    return Addresses(database_url=database_url, nats_url=environ.get("NATS_URL") or running.get("nats", ""))


def carried_out(name: str, work: Callable[[Addresses], Awaitable[int]]) -> int:
    """Do the command's work on the servers that are found; its exit code, or 1 where it cannot run, and why."""
    # Its warnings repeat, without end, what the command says once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

    async def body() -> int:
        return await work(find_addresses(os.environ))

    try:
        return asyncio.run(body())
    except CannotRun as problem:
        complain(name, str(problem))
    except psycopg.errors.UndefinedTable:
        complain(name, "the database has no tables yet: run `python -m ops release` first")
    except psycopg.errors.UndefinedColumn:
        complain(name, "the database is of another version: run `python -m ops release` first")
    except psycopg.OperationalError as error:
        complain(name, f"the database does not answer ({type(error).__name__})")
    return 1


def complain(name: str, text: str) -> None:
    """Tell the person at the terminal what is wrong."""
    print(f"{name}: {text}", file=sys.stderr)


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Database]:
    """One connection to PostgreSQL."""
    opened = await Database.open(url, size=1, name="ops")
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def bus(nats_url: str) -> AsyncIterator[Client]:
    """A connection to NATS that does not come back once it is lost. Raises CannotRun where there is none."""
    if not nats_url:
        raise CannotRun("no NATS address is known (NATS_URL, or `nats` in run.json)")
    try:
        async with asyncio.timeout(NATS_SECONDS):
            client = await nats.connect(
                nats_url.split(","),
                allow_reconnect=False,
                max_reconnect_attempts=1,  # of the first connect, which would go on for ever
                reconnect_time_wait=0,
                error_cb=_hear_error,
            )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise CannotRun(f"NATS cannot be reached ({type(error).__name__})") from None
    try:
        yield client
    except (nats.errors.Error, TimeoutError) as error:
        raise CannotRun(f"NATS does not answer ({type(error).__name__})") from None
    finally:
        await client.close()


async def _hear_error(error: Exception) -> None:
    """What goes wrong is raised as well, and told by the caller."""
