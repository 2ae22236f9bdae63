"""Create, list and revoke API keys: `keys create --user NAME`, `keys list`, `keys revoke ID`."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats
import nats.errors
import psycopg

from ops.local.launch_settings import PROJECT
from ops.local.run_file import read_run_file
from schemas import codec, subjects
from schemas.ids import new_id
from schemas.records import CallersRevoked
from workers.storage.callers import Callers, UserRow
from workers.storage.database import Database
from workers.storage.keys import Keys, ListedKey

KEY_START = "sk-cozy-"
SECRET_BYTES = 32
PREFIX_LENGTH = len(KEY_START) + 6
"""As much of a key as is stored to recognise it by; 220 of its 256 bits stay unknown."""
MAX_DAYS = 36_500
MAX_NAME = 100
NATS_SECONDS = 3
COLUMNS = ("ID", "PREFIX", "USER", "ROLE", "CREATED", "LAST USED", "EXPIRES", "STATE")


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


def main(argv: list[str]) -> int:
    """0 when done, 1 when not or not wholly (said on standard error), 2 for arguments that make no sense."""
    given = _parser().parse_args(argv)
    # Its warnings repeat, without end, what the command says once.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    try:
        return asyncio.run(_run(given, find_addresses(os.environ)))
    except CannotRun as problem:
        _complain(str(problem))
    except psycopg.errors.UndefinedTable:
        _complain("the database has no tables yet: run `python -m ops release` first")
    except psycopg.OperationalError as error:
        _complain(f"the database does not answer ({type(error).__name__})")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ops keys", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key, and its user where there is none; print it once")
    create.add_argument("--user", required=True, type=_name, metavar="NAME")
    create.add_argument("--role", choices=("user", "admin"), help="of a new user (default: user)")
    create.add_argument("--expires-days", type=_days, metavar="N", help="default: never")
    listing = commands.add_parser("list", help="show the keys there are, without the keys themselves")
    listing.add_argument("--user", metavar="NAME", help="only this user's")
    revoke = commands.add_parser("revoke", help="end a key for good, on every gateway")
    revoke.add_argument("key", metavar="KEY_ID_OR_PREFIX", help="as `keys list` shows it")
    return parser


def _name(text: str) -> str:
    if not text.strip() or len(text) > MAX_NAME or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a name has 1 to {MAX_NAME} printable characters")
    return text


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MAX_DAYS}")
    return int(text)


async def _run(given: argparse.Namespace, addresses: Addresses) -> int:
    async with _database(addresses.database_url) as database:
        if given.command == "create":
            return await _create(database, given.user, given.role, given.expires_days)
        if given.command == "list":
            return await _list(Keys(database), given.user)
        return await _revoke(Keys(database), given.key, addresses.nats_url)


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[Database]:
    database = await Database.open(url, size=1, name="keys")
    try:
        yield database
    finally:
        await database.close()


async def _create(database: Database, name: str, role: str | None, expires_days: int | None) -> int:
    user = await _user(Callers(database), name, role)
    key = KEY_START + secrets.token_urlsafe(SECRET_BYTES)
    key_id, key_hash = new_id(), hashlib.sha256(key.encode()).hexdigest()
    await Keys(database).add(key_id, user.user_id, key_hash, key[:PREFIX_LENGTH], expires_days)
    print(key)
    print(
        f"Key {key_id} of {name} (role {user.role}). It is shown this once: only its hash is stored.", file=sys.stderr
    )
    return 0


async def _user(callers: Callers, name: str, role: str | None) -> UserRow:
    """The user of this name, made where there is none."""
    user = await callers.find_user(name)
    if user is None:
        await callers.add_user(new_id(), name, role or "user")
        user = await callers.find_user(name)
    if user is None:
        raise CannotRun(f"user {name} could not be made")
    if not user.active:
        raise CannotRun(f"user {name} is not active: a key of theirs would open nothing")
    if role is not None and role != user.role:
        raise CannotRun(f"user {name} exists with role {user.role}, and a key does not change it")
    return user


async def _list(keys: Keys, name: str | None) -> int:
    rows = [COLUMNS, *(_row(key) for key in await keys.listed(name))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(key: ListedKey) -> tuple[str, ...]:
    times = (_time(key.created_at), _time(key.last_used_at), _time(key.expires_at))
    return (key.id, key.prefix, key.user_name, key.role, *times, key.state)


def _time(moment: datetime | None) -> str:
    return "never" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _revoke(keys: Keys, named: str, nats_url: str) -> int:
    key = _only(await keys.named(named), named)
    await keys.revoke(key.id)
    print(f"Key {key.id} of {key.user_name} is revoked.")
    problem = await _broadcast(nats_url, CallersRevoked(key_hash=key.key_hash))
    if problem is None:
        return 0
    _complain(
        f"{problem}, so the gateways could not be told: one that knows the key may take it until its cache forgets it "
        "(api.caller_cache_ttl). Once NATS is back, the same command again tells them."
    )
    return 1


def _only(found: Sequence[ListedKey], named: str) -> ListedKey:
    if not found:
        raise CannotRun(f"there is no key {named}; `keys list` shows them")
    if len(found) > 1:
        raise CannotRun(f"{named} means several keys, name one by its id: {', '.join(key.id for key in found)}")
    return found[0]


async def _broadcast(nats_url: str, revoked: CallersRevoked) -> str | None:
    """Tell every gateway. Gives what stood in the way, if anything did."""
    if not nats_url:
        return "no NATS address is known (NATS_URL, or `nats` in run.json)"
    try:
        async with asyncio.timeout(NATS_SECONDS):
            client = await nats.connect(
                nats_url.split(","),
                allow_reconnect=False,
                max_reconnect_attempts=1,  # of the first connect, which would go on for ever
                reconnect_time_wait=0,
                error_cb=_hear_error,
            )
            try:
                await client.publish(subjects.CALLERS_REVOKED, codec.encode(revoked))
                await client.flush(NATS_SECONDS)
            finally:
                await client.close()
    except (nats.errors.Error, OSError, TimeoutError) as error:
        return f"NATS cannot be reached ({type(error).__name__})"
    return None


async def _hear_error(error: Exception) -> None:
    """What goes wrong is raised as well, and told by the caller."""


def _complain(text: str) -> None:
    print(f"keys: {text}", file=sys.stderr)
