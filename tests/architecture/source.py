"""Our own source as data, for the rules of this folder: modules, what they import, and the texts they spell."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("gateway", "workers", "ops", "schemas", "migrations")
"""The top-level folders that hold the product's Python."""


@dataclass(frozen=True)
class Source:
    """One module. `path` is from the project's root, with slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @property
    def module(self) -> str:
        """`workers.storage` for `workers/storage/__init__.py`."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        """The package a relative import starts from."""
        return self.module if self.is_package else self.module.rpartition(".")[0]


def sources(*folders: str) -> list[Source]:
    """Every module below these folders."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def imports_of(source: Source) -> Iterator[tuple[str, int]]:
    """Each import as (dotted name, line). `from a import b` is `a.b`, whether b is a module or a name in one."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(source.package, node)
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def _absolute(package: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def is_in(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of these packages or below one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def texts_of(source: Source, *, but_for: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """Each text the code spells, as (text, line): docstrings left out, what is computed in an f-string as `{}`.

    `but_for`: texts in keyword arguments of these names are left out too.
    """
    yield from _texts(source.tree, frozenset(but_for))


def _texts(node: ast.AST, but_for: frozenset[str]) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
        yield text, node.lineno
    elif isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
        yield "".join(parts), node.lineno
    elif not (isinstance(node, ast.keyword) and node.arg in but_for):
        for child in ast.iter_child_nodes(node):
            if not _says_nothing(child):
                yield from _texts(child, but_for)


def _says_nothing(node: ast.AST) -> bool:
    """A text that stands alone as a statement is a docstring or a field's meaning."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
