"""Reads the named queries of `sql/*.sql`: `-- name: x`, one line that says what it does, then the statement."""

from __future__ import annotations

import re
from pathlib import Path

SQL = Path(__file__).parent / "sql"
_NAME = re.compile(r"^-- name: (\w+)\n-- (.+)\n", re.MULTILINE)


class BadQueryFile(ValueError):
    """A query file breaks the form; the message names the file and what is wrong."""


def load(name: str) -> dict[str, str]:
    """The queries of `sql/<name>.sql` by name. Raises BadQueryFile for a double name or a missing introduction."""
    text = (SQL / f"{name}.sql").read_text()
    found = list(_NAME.finditer(text))
    if len(found) != text.count("-- name:"):
        raise BadQueryFile(f"{name}.sql: every '-- name: x' line needs one line of introduction right below it")
    queries: dict[str, str] = {}
    for here, after in zip(found, [*found[1:], None], strict=True):
        if here[1] in queries:
            raise BadQueryFile(f"{name}.sql: the name {here[1]} is used twice")
        end = after.start() if after else len(text)
        queries[here[1]] = f"/* {here[1]} */ " + text[here.end() : end].strip().rstrip(";")
    return queries
