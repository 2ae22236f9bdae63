"""Named queries: every file of ours is in form, and a file that is not says what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workers.storage import queries
from workers.storage.database import Database
from workers.storage.queries import SQL, BadQueryFile, load

NAMES = sorted(path.stem for path in SQL.glob("*.sql"))


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> dict[str, str]:
    """What a file of this text is read as."""
    (folder / "some.sql").write_text(text)
    monkeypatch.setattr(queries, "SQL", folder)
    return load("some")


def test_a_query_is_found_by_its_name_without_its_introduction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "-- name: one\n-- Say one.\nSELECT 1;\n\n-- name: two\n-- Say two.\nSELECT\n  2;\n"
    found = written(tmp_path, monkeypatch, text)
    assert found == {"one": "/* one */ SELECT 1", "two": "/* two */ SELECT\n  2"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: one\nSELECT 1;\n", "one line of introduction"),
        ("-- name: one\n--\nSELECT 1;\n", "one line of introduction"),
        ("-- name: one\n-- A.\nSELECT 1;\n-- name: one\n-- B.\nSELECT 2;\n", "used twice"),
    ],
)
def test_a_file_out_of_form_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, complaint: str
) -> None:
    with pytest.raises(BadQueryFile, match=rf"^some\.sql: .*{complaint}"):
        written(tmp_path, monkeypatch, text)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_ours_is_in_form(name: str) -> None:
    assert load(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_query_is_one_statement(name: str) -> None:
    assert [query for query in load(name).values() if ";" in query] == []


@pytest.mark.parametrize("name", NAMES)
async def test_the_database_takes_every_query(name: str, database: Database) -> None:
    async with database.transaction() as held:
        for query in load(name).values():
            prepared = re.sub(r"%\((\w+)\)[sbt]", "NULL", query)
            assert await held.run(f"PREPARE it AS {prepared}", {}) is not None
            await held.run("DEALLOCATE it", {})


@pytest.mark.parametrize("name", NAMES)
def test_every_query_is_used(name: str) -> None:
    code = "".join(path.read_text() for path in SQL.parent.glob("*.py"))
    assert [query for query in load(name) if f'"{query}"' not in code] == []
