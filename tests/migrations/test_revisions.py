"""The schema: made by revisions in order, any number of times, whole or not at all."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import ProgrammingError

from ops.commands import release
from ops.commands.release import MIGRATIONS, migrate
from ops.local.embedded_postgres import EmbeddedPostgres
from tests.architecture.source import Source, imports_of

NUMBERS = count(1)
TABLES = {
    "api_keys",
    "audit_events",
    "leases",
    "memory_writes",
    "messages",
    "refusals",
    "sessions",
    "tool_calls",
    "turns",
    "users",
}
SECOND = '''"""{title}"""

from alembic import op

revision = "9999"
down_revision = "{newest}"


def upgrade() -> None:
    op.execute("CREATE TABLE later (id int)")
    op.execute("{statement}")
'''


def revisions() -> list[Any]:
    """All of ours, the newest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return list(ScriptDirectory.from_config(config).walk_revisions())


@pytest.fixture
async def empty_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database with nothing in it."""
    name = f"empty_{next(NUMBERS)}"
    yield await postgres.create_database(name)
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def tables(url: str) -> set[str]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row[0] for row in await found.fetchall()}


async def version(url: str) -> str:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        row = await (await connection.execute("SELECT version_num FROM alembic_version")).fetchone()
        assert row is not None
        return str(row[0])


async def test_from_nothing_every_table_is_made(empty_url: str) -> None:
    await asyncio.to_thread(migrate, empty_url)
    assert await tables(empty_url) == TABLES | {"alembic_version"}
    assert await version(empty_url) == revisions()[0].revision


async def test_twice_changes_nothing(empty_url: str) -> None:
    await asyncio.to_thread(migrate, empty_url)
    async with await psycopg.AsyncConnection.connect(empty_url) as connection:
        await connection.execute("INSERT INTO users (id, name) VALUES (gen_random_uuid(), 'ann')")
    await asyncio.to_thread(migrate, empty_url)
    async with await psycopg.AsyncConnection.connect(empty_url) as connection:
        assert await (await connection.execute("SELECT name FROM users")).fetchall() == [("ann",)]


async def test_releases_at_once_take_turns(empty_url: str) -> None:
    program = "import sys; from ops.commands.release import migrate; migrate(sys.argv[1])"
    releases = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, empty_url) for _ in range(2)]
    async with asyncio.timeout(60):
        assert [await each.wait() for each in releases] == [0, 0]
    assert await tables(empty_url) == TABLES | {"alembic_version"}


Later = Callable[[str], None]


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Later:
    """Add one more revision, with this statement at its end."""

    def add(statement: str) -> None:
        copy = shutil.copytree(MIGRATIONS, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
        text = SECOND.format(title="Later.", newest=revisions()[0].revision, statement=statement)
        (copy / "versions" / "9999_later.py").write_text(text)
        monkeypatch.setattr(release, "MIGRATIONS", copy)

    return add


async def test_a_later_revision_is_added_to_what_is_there(database_url: str, later: Later) -> None:
    later("INSERT INTO later VALUES (1)")
    await asyncio.to_thread(migrate, database_url)
    assert await version(database_url) == "9999"
    assert "later" in await tables(database_url)


async def test_a_revision_that_fails_leaves_everything_as_it_was(database_url: str, later: Later) -> None:
    before = await version(database_url)
    later("SELECT * FROM nowhere")
    with pytest.raises(ProgrammingError):
        await asyncio.to_thread(migrate, database_url)
    assert await version(database_url) == before
    assert "later" not in await tables(database_url)


def test_there_is_one_line_of_revisions() -> None:
    found = revisions()
    assert [each.down_revision for each in found] == [*(each.revision for each in found[1:]), None]


@pytest.mark.parametrize("revision", revisions(), ids=lambda each: str(each.revision))
def test_a_revision_is_plain_sql_under_its_own_name(revision: Any) -> None:
    path = Path(revision.path)
    names = {name for name, _ in imports_of(Source(path.name, path.read_text(encoding="utf-8")))}
    assert names <= {"__future__.annotations", "alembic.op"}
    assert path.name.startswith(f"{revision.revision}_")
    assert revision.doc
