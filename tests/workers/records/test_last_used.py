"""Moments of use, kept until they are stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from tests.workers.storage.rows import add_key, add_user, key_hash_of
from workers.records.last_used import LastUsed
from workers.storage.callers import Callers
from workers.storage.database import Database
from workers.storage.keys import Keys

START = datetime(2026, 1, 2, tzinfo=UTC)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


async def stored(database: Database) -> datetime | None:
    [key] = await Keys(database).listed(None)
    return key.last_used_at


async def test_the_newest_of_many_uses_is_stored(database: Database) -> None:
    clock = Clock()
    last_used = LastUsed(Callers(database), clock)
    key = await add_key(database, await add_user(database), key_hash_of("k"))
    last_used.note(key)
    clock.now += timedelta(seconds=5)
    last_used.note(key)
    await last_used.store()
    assert await stored(database) == clock.now


async def test_what_was_stored_is_not_stored_again(database: Database) -> None:
    last_used = LastUsed(Callers(database), Clock())
    key = await add_key(database, await add_user(database), key_hash_of("k"))
    last_used.note(key)
    await last_used.store()
    await database.run("UPDATE api_keys SET last_used_at = NULL", {})
    await last_used.store()
    assert await stored(database) is None


async def test_what_cannot_be_stored_is_logged_and_kept_for_the_next_time(
    database: Database, database_url: str
) -> None:
    key = await add_key(database, await add_user(database), key_hash_of("k"))
    callers = Callers(database)
    last_used = LastUsed(callers, Clock())
    last_used.note(key)
    await database.run("ALTER TABLE api_keys RENAME TO elsewhere", {})
    with capture_logs() as logs:
        await last_used.store()
    assert [(line["event"], line["sqlstate"]) for line in logs] == [("last_use_not_stored", "42P01")]
    await database.run("ALTER TABLE elsewhere RENAME TO api_keys", {})
    await last_used.store()
    assert await stored(database) == START
