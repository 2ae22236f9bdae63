"""The rules of a file's shape: how long it may be, and what its first line says."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from tests.architecture.source import Source

LIMIT = 300


def too_long(files: Mapping[str, str]) -> list[str]:
    """Files, by path, with more lines than one sitting reads."""
    lengths = {path: len(text.splitlines()) for path, text in files.items()}
    return [f"{path} has {length} lines" for path, length in lengths.items() if length > LIMIT]


def silent(sources: Iterable[Source]) -> list[str]:
    """Modules and packages whose first statement does not say what lives there."""
    return [source.path for source in sources if not (ast.get_docstring(source.tree) or "").strip()]
