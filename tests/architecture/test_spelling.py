"""SQL lives in workers/storage and the migrations; a subject is spelled in schemas/subjects.py and nowhere else."""

from __future__ import annotations

import pytest

from tests.architecture.source import PRODUCT, Source, sources
from tests.architecture.spelling import sql_in, subjects_in

HOUSE = sources(*PRODUCT)
KNOWS_SQL = ("workers/storage/", "migrations/", "ops/local/embedded_postgres.py")
"""The last asks its own server which databases there are and makes one: before there is any table of ours."""


def test_only_storage_and_migrations_know_sql() -> None:
    assert sql_in(source for source in HOUSE if not source.path.startswith(KNOWS_SQL)) == []


def test_what_may_know_sql_is_looked_at() -> None:
    assert {place.partition(":")[0] for place in sql_in(HOUSE)} >= {
        "migrations/versions/0001_spine.py",
        "ops/local/embedded_postgres.py",
        "workers/storage/database.py",
    }


@pytest.mark.parametrize(
    "line",
    [
        'q = "SELECT id FROM turns"',
        'q = b"SELECT 1"',
        'q = "select id\\nfrom turns"',
        'q = f"UPDATE {table} SET state = 1"',
        'q = """\n    WITH x AS (SELECT 1) SELECT * FROM x"""',
        'await c.execute("delete from turns where id = 1")',
        'q = f"insert into {table} values (1)"',
        'q = "ALTER TABLE turns ADD x int"',
    ],
)
def test_a_statement_elsewhere_is_found(line: str) -> None:
    assert sql_in([Source("workers/stage.py", line)]) == ["workers/stage.py:1"]


@pytest.mark.parametrize(
    "line",
    [
        '"""Select what fits from the turns."""',
        'log.info("updated", rows=1)',
        'message = "Update the settings and try again."',
        'x = "WITHDRAWN"',
    ],
)
def test_plain_words_are_no_statement(line: str) -> None:
    assert sql_in([Source("workers/stage.py", line)]) == []


def test_only_one_file_spells_a_subject() -> None:
    assert subjects_in(source for source in HOUSE if source.path != "schemas/subjects.py") == []


def test_that_file_is_looked_at() -> None:
    spelled = subjects_in(source for source in HOUSE if source.path == "schemas/subjects.py")
    assert len(spelled) >= 10


@pytest.mark.parametrize(
    "line",
    [
        's = "turn.requested"',
        's = f"reply.{shard}.{turn_id}"',
        'await bus.listen("cancel.*", hear)',
        's = b"live.0.x"',
        's = "records." + name',
    ],
)
def test_a_subject_spelled_elsewhere_is_found(line: str) -> None:
    assert subjects_in([Source("gateway/chat.py", line)])


@pytest.mark.parametrize(
    "line",
    [
        '"""reply.0.x is where frames go."""',
        'await bus.store(subject, data, msg_id=f"dead.{stage}")',
        'title = "live and let live"',
        'log.info("turn_accepted")',
    ],
)
def test_a_docstring_a_message_id_and_plain_words_are_no_subject(line: str) -> None:
    assert subjects_in([Source("gateway/chat.py", line)]) == []
