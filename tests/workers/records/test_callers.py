"""Whose key it is, and when it is nobody's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas.faults import AuthExpired, AuthInvalid
from schemas.ids import is_id
from schemas.records import Caller
from tests.workers.storage.rows import add_key, add_user, key_hash_of
from workers.records.callers import CallerDesk, caller_of
from workers.records.development import DEVELOPMENT_CALLERS
from workers.records.last_used import LastUsed
from workers.storage.callers import Callers, KeyRow
from workers.storage.database import Database

HASH = key_hash_of("k")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
DEV, ADMIN = key_hash_of("sk-cozy-dev"), key_hash_of("sk-cozy-admin")


def key(*, active: bool = True, revoked: bool = False, expired: bool = False) -> KeyRow:
    return KeyRow(key_id="k", user_id="u", role="admin", active=active, revoked=revoked, expired=expired)


def desk(database: Database, *, dev_keys: bool = False) -> CallerDesk:
    callers = Callers(database)
    return CallerDesk(callers, LastUsed(callers, lambda: NOW), dev_keys=dev_keys)


def test_a_good_key_stands_for_its_user() -> None:
    assert caller_of(key()) == Caller(user_id="u", role="admin", key_id="k")


def test_an_expired_key_is_told_so() -> None:
    with pytest.raises(AuthExpired):
        caller_of(key(expired=True))


@pytest.mark.parametrize("found", [None, key(revoked=True), key(active=False), key(revoked=True, expired=True)])
def test_no_more_is_told_of_a_key_that_is_unknown_revoked_or_of_an_inactive_user(found: KeyRow | None) -> None:
    with pytest.raises(AuthInvalid):
        caller_of(found)


async def test_a_stored_key_finds_its_caller(database: Database) -> None:
    user = await add_user(database, role="admin")
    key_id = await add_key(database, user, HASH)
    assert await desk(database).find(HASH) == Caller(user_id=user, role="admin", key_id=key_id)


async def test_finding_a_caller_is_noted_and_stored_later(database: Database) -> None:
    callers = Callers(database)
    last_used = LastUsed(callers, lambda: NOW)
    await add_key(database, await add_user(database), HASH)
    await CallerDesk(callers, last_used, dev_keys=False).find(HASH)
    used = "SELECT FROM api_keys WHERE last_used_at = %(now)s"
    assert await database.run(used, {"now": NOW}) == 0
    await last_used.store()
    assert await database.run(used, {"now": NOW}) == 1


@pytest.mark.parametrize(("key_hash", "name", "role"), [(DEV, "dev", "user"), (ADMIN, "admin", "admin")])
async def test_a_development_key_makes_its_user_once(database: Database, key_hash: str, name: str, role: str) -> None:
    first = await desk(database, dev_keys=True).find(key_hash)
    assert first == await desk(database, dev_keys=True).find(key_hash)
    assert first.role == role
    user = await Callers(database).find_user(name)
    assert user is not None
    assert (user.user_id, user.role) == (first.user_id, role)


async def test_a_development_key_stands_for_the_user_of_that_name_if_there_is_one(database: Database) -> None:
    user = await add_user(database, "dev")
    assert (await desk(database, dev_keys=True).find(DEV)).user_id == user


async def test_a_development_key_of_an_inactive_user_opens_nothing(database: Database) -> None:
    await add_user(database, "dev", status="inactive")
    with pytest.raises(AuthInvalid):
        await desk(database, dev_keys=True).find(DEV)


@pytest.mark.parametrize("key_hash", [DEV, ADMIN])
async def test_outside_development_the_development_keys_open_nothing_even_if_stored(
    database: Database, key_hash: str
) -> None:
    await add_key(database, await add_user(database, role="admin"), key_hash)
    with pytest.raises(AuthInvalid):
        await desk(database).find(key_hash)


def test_development_users_have_ids_of_our_form() -> None:
    assert all(is_id(caller.user_id) for caller in DEVELOPMENT_CALLERS.values())
