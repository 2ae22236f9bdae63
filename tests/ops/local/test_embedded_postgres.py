"""ops/local/embedded_postgres.py."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from ops.local.child import Program, spawn
from ops.local.embedded import ServerFailed
from ops.local.embedded_postgres import EmbeddedPostgres
from tests.ops.local.watching import alive, passable_folder

RUNNING = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
ENDLESS = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data folder whose database, once made, serves all tests: making one takes longer than most of them."""
    with passable_folder() as folder:
        yield folder


@pytest.fixture
async def server(made: Path) -> AsyncIterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(made, fsync=False)
    await embedded.start()
    await run(embedded.url, "DROP TABLE IF EXISTS kept")
    yield embedded
    await embedded.kill()


async def run(url: str, statement: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement)
        return await cursor.fetchall() if cursor.description else []


async def test_it_speaks_utf_8_and_keeps_its_promises_about_durability(made: Path) -> None:
    server = EmbeddedPostgres(made)
    rows = await run(
        await server.start(),
        "SELECT lower('ÄΣЖ'), current_setting('fsync'), current_setting('synchronous_commit'),"
        " current_setting('full_page_writes'), current_setting('server_version_num')::int / 10000",
    )
    assert rows == [("äσж", "on", "on", "on", 18)]
    await server.stop()
    assert set(os.listdir(made)) == {"postgres", "postgres.password", "ports.json", "logs"}


async def test_stopped_and_started_again_it_has_its_address_and_its_data(server: EmbeddedPostgres, made: Path) -> None:
    await run(server.url, "CREATE TABLE kept AS SELECT 1 AS number")
    pid = server.pid
    await server.stop()
    assert not alive(pid)
    again = EmbeddedPostgres(made, fsync=False)
    assert await again.start() == server.url
    assert await run(again.url, "SELECT number FROM kept") == [(1,)]
    await again.stop()


async def test_it_comes_back_at_once_after_its_postmaster_was_killed_under_a_busy_backend(
    server: EmbeddedPostgres,
) -> None:
    await run(server.url, "CREATE TABLE kept AS SELECT 1 AS number")
    busy = asyncio.create_task(run(server.url, ENDLESS))
    async with asyncio.timeout(10):
        while not await run(server.url, RUNNING):
            pass
    backends = psutil.Process(server.pid).children()
    os.kill(server.pid, signal.SIGKILL)
    begun = time.monotonic()
    await server.start()
    assert time.monotonic() - begun < 3
    assert not any(alive(backend.pid) for backend in backends)
    assert await run(server.url, "SELECT number FROM kept") == [(1,)]
    with suppress(psycopg.OperationalError):
        await busy


async def test_a_pid_file_that_names_a_living_stranger_is_no_obstacle(server: EmbeddedPostgres, tmp_path: Path) -> None:
    await server.kill()
    account = server.home.account
    # Of the same user, because PostgreSQL itself sees through any other.
    user = (account.uid, account.gid) if account else None
    sleep = [shutil.which("sleep") or "", "60"]
    stranger = await spawn(Program(name="x", argv=sleep, env={}, log=tmp_path / "log", cwd=Path("/"), user=user))
    (server.home.data / "postmaster.pid").write_text(f"{stranger.pid}\n{server.home.data}\n")
    await server.start()
    assert await run(server.url, "SELECT 1") == [(1,)]
    assert stranger.running
    await stranger.stop(signal.SIGKILL, 1)


async def test_a_database_can_be_made_from_another(server: EmbeddedPostgres) -> None:
    template = await server.create_database("te mplate")
    await run(template, "CREATE TABLE kept AS SELECT 1 AS number")
    assert await run(await server.create_database("copy", "te mplate"), "SELECT number FROM kept") == [(1,)]


async def test_nobody_gets_in_without_the_password_and_the_data_are_closed_to_others(server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await run("postgresql://cozy:guess@" + server.url.partition("@")[2], "SELECT 1")
    assert server.home.data.stat().st_mode & 0o777 == 0o700
    assert server.home.data.with_name("postgres.password").stat().st_mode & 0o777 == 0o600
    listening = {at.laddr.ip for at in psutil.Process(server.pid).net_connections("inet") if at.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


async def test_what_a_failed_statement_said_is_not_in_the_log(server: EmbeddedPostgres) -> None:
    await run(server.url, "CREATE TABLE words (word text PRIMARY KEY); INSERT INTO words VALUES ('canary')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await run(server.url, "INSERT INTO words VALUES ('canary')")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        await run(server.url, "SELECT 'canary'::uuid")
    log = server.log.read_text()
    assert "ready to accept connections" in log
    assert "canary" not in log


async def test_a_start_that_was_killed_half_way_is_begun_anew(folder: Path) -> None:
    (folder / "postgres.unfinished").mkdir()
    (folder / "postgres.unfinished" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(folder, fsync=False)
    assert await run(await server.start(), "SELECT 1") == [(1,)]
    await server.stop()


async def test_two_cannot_use_the_same_data_and_a_lost_password_is_named(server: EmbeddedPostgres, made: Path) -> None:
    with pytest.raises(ServerFailed, match="is in use by another process"):
        await EmbeddedPostgres(made).start()
    assert await run(server.url, "SELECT 1") == [(1,)]
    await server.stop()
    password = (made / "postgres.password").rename(made / "hidden")
    with pytest.raises(ServerFailed, match=r"postgres\.password is missing"):
        await EmbeddedPostgres(made).start()
    password.rename(made / "postgres.password")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's PostgreSQL runs as that user")
async def test_roots_runs_as_an_ordinary_user_who_gets_a_place_of_its_own_below_a_closed_home(folder: Path) -> None:
    home, shelter = folder / "home", folder / "shelter"
    home.mkdir(mode=0o700)
    server = EmbeddedPostgres(home / "data", fsync=False, shelter=shelter)
    await server.start()
    assert psutil.Process(server.pid).uids().effective != 0
    assert server.home.data.is_relative_to(shelter)
    assert home.stat().st_mode & 0o777 == 0o700
    assert any(str(server.home.data) in note for note in server.home.notes)
    await run(server.url, "CREATE TABLE kept AS SELECT 1 AS number")
    await server.kill()
    again = EmbeddedPostgres(home / "data", fsync=False, shelter=shelter)
    assert await run(await again.start(), "SELECT number FROM kept") == [(1,)]
    await again.stop()
