"""Imports go only down, stages do not know each other, and nothing goes in circles."""

from __future__ import annotations

import pytest

from tests.architecture.imports import circles, meetings, strangers, upward, users_of
from tests.architecture.source import PRODUCT, Source, imports_of, sources

HOUSE = sources(*PRODUCT)
SCHEMAS = [source for source in HOUSE if source.path.startswith("schemas/")]


def test_the_whole_house_is_looked_at() -> None:
    assert {source.path.partition("/")[0] for source in HOUSE} == set(PRODUCT)


def test_imports_go_only_down() -> None:
    assert upward(HOUSE) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("schemas/a.py", "from ops.runtime import bus"),
        ("ops/runtime/a.py", "import workers.stage"),
        ("ops/runtime/a.py", "from ops.local import files"),
        ("gateway/a.py", "from workers.storage.turns import Turns"),
        ("workers/a.py", "def f():\n    import gateway.app"),
        ("workers/a.py", "from ops import commands"),
        ("workers/a.py", "from ops.local.files import FileLock"),
        ("workers/storage/a.py", "from ..stage import Stage\nfrom ...gateway import app"),
        ("ops/local/a.py", "from ops.commands import up"),
        ("ops/load/a.py", "from ops.local import files"),
        ("ops/commands/a.py", "from workers.generation import writer"),
        ("migrations/a.py", "from schemas import ids"),
        ("gateway/a.py", "from tests.conftest import bus"),
    ],
)
def test_an_import_that_goes_up_or_aside_is_found(path: str, line: str) -> None:
    assert upward([Source(path, line)])


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("gateway/a.py", "from ops.runtime.bus import Bus\nfrom schemas import ids\nfrom gateway import app"),
        ("workers/a.py", "from . import stage\nimport schemas.ids"),
        ("ops/commands/a.py", "from workers.storage.keys import Keys"),
    ],
)
def test_an_import_that_goes_down_is_let_be(path: str, line: str) -> None:
    assert upward([Source(path, line)]) == []


def test_schemas_import_msgspec_and_the_standard_library_only() -> None:
    assert strangers(SCHEMAS, ["msgspec"]) == []


def test_a_library_in_schemas_is_found() -> None:
    assert strangers([Source("schemas/a.py", "import zlib, msgspec, psycopg.rows")], ["msgspec"]) == [
        "schemas/a.py:1 imports psycopg.rows"
    ]


def test_only_the_migrations_environment_sees_sqlalchemy() -> None:
    assert users_of("sqlalchemy", HOUSE) == {"migrations/env.py"}


def test_a_use_of_sqlalchemy_is_found() -> None:
    assert users_of("sqlalchemy", [Source("workers/a.py", "from sqlalchemy.orm import Session")]) == {"workers/a.py"}


def test_only_the_voice_stage_sees_livekit_agents() -> None:
    assert all(path.startswith("workers/voice/") for path in users_of("livekit", HOUSE))


def test_stages_do_not_know_each_other() -> None:
    assert meetings(HOUSE) == []


@pytest.mark.parametrize("path", ["workers/generation/a.py", "workers/storage/a.py", "workers/stage.py"])
def test_an_import_of_another_stage_is_found(path: str) -> None:
    assert meetings([Source(path, "from workers.context_fetch.intake import fit")])


def test_a_stage_may_import_its_own_rooms() -> None:
    assert meetings([Source("workers/records/a.py", "from workers.records.pages import page")]) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(HOUSE) == []


def test_a_circle_is_found_and_named() -> None:
    circle = [
        Source("workers/a.py", "from workers.b import thing"),
        Source("workers/b.py", "def f():\n    from workers import c"),
        Source("workers/c.py", "import workers.a"),
    ]
    assert circles(circle) == ["workers.a > workers.b > workers.c > workers.a"]


def test_two_ways_to_one_module_are_no_circle() -> None:
    fork = [
        Source("workers/a.py", "from workers import b, c"),
        Source("workers/b.py", "import workers.d"),
        Source("workers/c.py", "import workers.d"),
        Source("workers/d.py", ""),
    ]
    assert circles(fork) == []


@pytest.mark.parametrize(
    ("path", "line", "name"),
    [
        ("workers/storage/a.py", "from . import times", "workers.storage.times"),
        ("workers/storage/__init__.py", "from .times import then", "workers.storage.times.then"),
        ("workers/storage/a.py", "from ..stage import Stage", "workers.stage.Stage"),
    ],
)
def test_a_relative_import_is_read_as_what_it_means(path: str, line: str, name: str) -> None:
    assert list(imports_of(Source(path, line))) == [(name, 1)]
