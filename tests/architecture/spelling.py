"""The rules of what is spelled where: SQL in the storage and its revisions, subjects in one file."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.architecture.source import Source, texts_of

SQL = re.compile(
    r"\A\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|TRUNCATE|GRANT|LOCK|COPY)\s"
    r"|(?i:\bselect\s.+\sfrom\s|\binsert\s+into\s|\bupdate\s+\w+\s+set\s|\bdelete\s+from\s|\balter\s+table\s)",
    re.DOTALL,
)
SUBJECT = re.compile(r"\A(turn|reply|live|verdict|stored|records|dead|cancel|listeners|callers)\.")


def sql_in(sources: Iterable[Source]) -> list[str]:
    """Where a text looks like a statement."""
    return [f"{source.path}:{line}" for source in sources for text, line in texts_of(source) if SQL.search(text)]


def subjects_in(sources: Iterable[Source]) -> list[str]:
    """Where a text begins as one of our subjects does. A message's id is none."""
    return [
        f"{source.path}:{line} {text!r}"
        for source in sources
        for text, line in texts_of(source, but_for=["msg_id"])
        if SUBJECT.match(text)
    ]
