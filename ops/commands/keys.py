"""Create, list and revoke API keys: `keys create --user NAME`, `keys list`, `keys revoke ID`."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
from collections.abc import Sequence
from functools import partial

from ops.commands._servers import NATS_SECONDS, Addresses, CannotRun, bus, carried_out, complain, database
from ops.commands._tables import stamp, table
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
COLUMNS = ("ID", "PREFIX", "USER", "ROLE", "CREATED", "LAST USED", "EXPIRES", "STATE")


def main(argv: list[str]) -> int:
    """0 when done, 1 when not or not wholly (said on standard error), 2 for arguments that make no sense."""
    given = _parser().parse_args(argv)
    return carried_out("keys", partial(_run, given))


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
    async with database(addresses.database_url) as opened:
        if given.command == "create":
            return await _create(opened, given.user, given.role, given.expires_days)
        if given.command == "list":
            return await _list(Keys(opened), given.user)
        return await _revoke(Keys(opened), given.key, addresses.nats_url)


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
    print(table(COLUMNS, map(_row, await keys.listed(name))))
    return 0


def _row(key: ListedKey) -> tuple[str, ...]:
    times = (stamp(key.created_at), stamp(key.last_used_at), stamp(key.expires_at))
    return (key.id, key.prefix, key.user_name, key.role, *times, key.state)


async def _revoke(keys: Keys, named: str, nats_url: str) -> int:
    key = _only(await keys.named(named), named)
    await keys.revoke(key.id)
    print(f"Key {key.id} of {key.user_name} is revoked.")
    problem = await _broadcast(nats_url, CallersRevoked(key_hash=key.key_hash))
    if problem is None:
        return 0
    complain(
        "keys",
        f"{problem}, so the gateways could not be told: one that knows the key may take it until its cache forgets it "
        "(api.caller_cache_ttl). Once NATS is back, the same command again tells them.",
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
    try:
        async with bus(nats_url) as client:
            await client.publish(subjects.CALLERS_REVOKED, codec.encode(revoked))
            await client.flush(NATS_SECONDS)
    except CannotRun as problem:
        return str(problem)
    return None
