"""The rows of API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from schemas.ids import new_id
from tests.workers.storage.rows import add_key, add_user, key_hash_of
from workers.storage.database import Database
from workers.storage.keys import Keys

PAST = datetime(2020, 1, 1, tzinfo=UTC)


async def test_a_key_is_added_with_its_expiry(database: Database) -> None:
    user, keys = await add_user(database, "ann", role="admin"), Keys(database)
    await keys.add(new_id(), user, key_hash_of("k"), "sk-cozy-abc", 3)
    [key] = await keys.listed(None)
    assert (key.user_name, key.role, key.prefix, key.state) == ("ann", "admin", "sk-cozy-abc", "active")
    assert key.expires_at is not None
    assert key.expires_at - key.created_at == timedelta(days=3)


async def test_a_key_without_days_does_not_expire(database: Database) -> None:
    user, keys = await add_user(database), Keys(database)
    await keys.add(new_id(), user, key_hash_of("k"), "sk-cozy-abc", None)
    assert [key.expires_at for key in await keys.listed(None)] == [None]


async def test_one_users_keys_can_be_listed(database: Database) -> None:
    ann = await add_user(database, "ann")
    key = await add_key(database, ann, key_hash_of("a"))
    await add_key(database, await add_user(database, "ben"), key_hash_of("b"))
    assert [listed.id for listed in await Keys(database).listed("ann")] == [key]


async def test_keys_are_named_by_id_or_prefix(database: Database) -> None:
    user, keys = await add_user(database), Keys(database)
    first = await add_key(database, user, key_hash_of("1"), prefix="sk-cozy-one")
    second = await add_key(database, user, key_hash_of("2"), prefix="sk-cozy-one")
    assert [key.id for key in await keys.named(second)] == [second]
    assert {key.id for key in await keys.named("sk-cozy-one")} == {first, second}
    assert await keys.named("sk-cozy-o") == []


@pytest.mark.parametrize(
    ("user", "key", "state"),
    [
        ({}, {}, "active"),
        ({"status": "inactive"}, {}, "user inactive"),
        ({"status": "inactive"}, {"expires_at": PAST}, "expired"),
        ({}, {"expires_at": PAST, "revoked_at": PAST}, "revoked"),
    ],
)
async def test_a_listed_key_says_what_speaks_against_it(
    database: Database, user: dict[str, str], key: dict[str, datetime], state: str
) -> None:
    await add_key(database, await add_user(database, **user), key_hash_of("k"), **key)
    assert [listed.state for listed in await Keys(database).listed(None)] == [state]


async def test_revoking_again_keeps_the_first_moment(database: Database) -> None:
    keys = Keys(database)
    key = await add_key(database, await add_user(database), key_hash_of("k"), revoked_at=PAST)
    await keys.revoke(key)
    assert [listed.revoked_at for listed in await keys.listed(None)] == [PAST]
