"""Keys by their hash, users by their name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from schemas.ids import new_id
from tests.workers.storage.rows import add_key, add_user, key_hash_of
from workers.storage.callers import Callers, KeyRow, UserRow
from workers.storage.database import Database
from workers.storage.keys import Keys

HASH = key_hash_of("k")
PAST = datetime(2020, 1, 1, tzinfo=UTC)


async def test_a_key_is_found_by_its_hash(database: Database) -> None:
    user = await add_user(database, role="admin")
    key = await add_key(database, user, HASH)
    found = await Callers(database).find_key(HASH)
    assert found == KeyRow(key_id=key, user_id=user, role="admin", active=True, revoked=False, expired=False)


async def test_an_unknown_hash_finds_nothing(database: Database) -> None:
    assert await Callers(database).find_key(HASH) is None


async def test_what_speaks_against_a_key_is_told(database: Database) -> None:
    user = await add_user(database, status="inactive")
    await add_key(database, user, HASH, expires_at=PAST, revoked_at=PAST)
    found = await Callers(database).find_key(HASH)
    assert found is not None
    assert (found.active, found.revoked, found.expired) == (False, True, True)


async def test_a_user_already_there_by_name_or_id_is_left_as_they_are(database: Database) -> None:
    callers = Callers(database)
    user = await add_user(database, "dev", role="admin")
    await callers.add_user(new_id(), "dev", "user")
    await callers.add_user(user, "other", "user")
    assert await callers.find_user("dev") == UserRow(user_id=user, role="admin", active=True)
    assert await callers.find_user("other") is None


async def last_used(database: Database) -> datetime | None:
    [key] = await Keys(database).listed(None)
    return key.last_used_at


async def test_the_last_use_of_a_key_is_stored_at_most_once_a_minute(database: Database) -> None:
    callers = Callers(database)
    key = await add_key(database, await add_user(database), HASH)
    assert await callers.note_last_use({key: PAST}) == 1
    assert await callers.note_last_use({key: PAST + timedelta(seconds=59)}) == 0
    assert await last_used(database) == PAST
    assert await callers.note_last_use({key: PAST + timedelta(seconds=60)}) == 1
    assert await last_used(database) == PAST + timedelta(seconds=60)


async def test_a_last_use_never_goes_back(database: Database) -> None:
    callers = Callers(database)
    key = await add_key(database, await add_user(database), HASH, last_used_at=PAST)
    assert await callers.note_last_use({key: PAST - timedelta(hours=1)}) == 0


async def test_the_last_uses_of_many_keys_are_stored_together(database: Database) -> None:
    user = await add_user(database)
    keys = [await add_key(database, user, key_hash_of(str(number))) for number in range(3)]
    assert await Callers(database).note_last_use(dict.fromkeys([*keys, new_id()], PAST)) == 3
