"""A file is read in one sitting, and its first line says what lives there."""

from __future__ import annotations

import pytest

from tests.architecture.shape import LIMIT, silent, too_long
from tests.architecture.source import PRODUCT, ROOT, Source, sources

WRITTEN = (".py", ".sql", ".yaml", ".yml", ".sh")


def written() -> dict[str, str]:
    """Every file that people read and change, by path."""
    paths = (path for folder in (*PRODUCT, "tests") for path in (ROOT / folder).rglob("*") if path.suffix in WRITTEN)
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_no_file_is_too_long() -> None:
    assert too_long(written()) == []


def test_a_long_file_is_found() -> None:
    assert too_long({"a.py": "x\n" * LIMIT, "b.py": "x\n" * (LIMIT + 1)}) == [f"b.py has {LIMIT + 1} lines"]


def test_every_module_and_package_says_what_lives_there() -> None:
    assert silent(sources(*PRODUCT)) == []


def test_every_test_module_says_what_it_is_about() -> None:
    assert silent(source for source in sources("tests") if not source.is_package) == []


@pytest.mark.parametrize("text", ["", "import os\n", '# comment\nx = 1\n"""too late"""\n', '"""  """\n'])
def test_a_silent_module_is_found(text: str) -> None:
    assert silent([Source("workers/a.py", text)]) == ["workers/a.py"]


def test_a_comment_above_the_docstring_does_no_harm() -> None:
    assert silent([Source("workers/a.py", '# noqa\n"""What lives here."""\n')]) == []
