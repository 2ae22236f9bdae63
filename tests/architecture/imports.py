"""The rules of imports: only down, stages apart, no circles. Each says what is wrong, one line a place."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from tests.architecture.source import Source, imports_of, is_in

FLOORS: Mapping[str, tuple[str, ...]] = {
    "schemas": (),
    "ops.runtime": ("schemas",),
    "gateway": ("ops.runtime", "schemas"),
    "workers": ("ops.runtime", "schemas"),
    "ops.local": ("ops.runtime", "schemas"),
    "ops.load": ("ops.runtime", "schemas"),
    # A drill starts a system on this machine and, at the end, holds all that is stored against what its clients saw.
    "ops.drills": ("ops.runtime", "ops.local", "ops.load", "workers.storage", "schemas"),
    # A command that shows or changes stored data goes through the one place that knows SQL.
    "ops.commands": ("ops.runtime", "ops.local", "workers.storage", "schemas"),
    "ops": ("ops.commands",),
    "migrations": (),
}
"""What each part may import beside itself. The longest name that fits a module counts."""

STAGES = tuple(
    f"workers.{stage}"
    for stage in ("context_fetch", "generation", "tool_execution", "memory_writeback", "records", "voice")
)
OURS = ("gateway", "workers", "ops", "schemas", "migrations", "tests")


def floor_of(module: str) -> str:
    """The part a module belongs to."""
    fitting = [floor for floor in FLOORS if is_in(module, floor)]
    return max(fitting, key=len) if fitting else ""


def upward(sources: Iterable[Source]) -> list[str]:
    """Imports of ours that do not go down."""
    wrong = []
    for source in sources:
        floor = floor_of(source.module)
        for name, line in imports_of(source):
            if is_in(name, *OURS) and floor_of(name) != floor and not is_in(name, *FLOORS.get(floor, ())):
                wrong.append(f"{source.path}:{line} imports {name}")
    return wrong


def strangers(sources: Iterable[Source], allowed: Sequence[str]) -> list[str]:
    """Imports that are neither ours, nor the standard library's, nor of the libraries allowed."""
    return [
        f"{source.path}:{line} imports {name}"
        for source in sources
        for name, line in imports_of(source)
        if name.partition(".")[0] not in sys.stdlib_module_names and not is_in(name, *OURS, *allowed)
    ]


def users_of(library: str, sources: Iterable[Source]) -> set[str]:
    """The files that import a library."""
    return {source.path for source in sources for name, _ in imports_of(source) if is_in(name, library)}


def meetings(sources: Iterable[Source]) -> list[str]:
    """Imports of a stage from outside that stage."""
    return [
        f"{source.path}:{line} imports {name}"
        for source in sources
        for name, line in imports_of(source)
        for stage in STAGES
        if is_in(name, stage) and not is_in(source.module, stage)
    ]


def circles(sources: Sequence[Source]) -> list[str]:
    """Circles of modules that import each other, each as `a > b > a`, once."""
    known = {source.module for source in sources}
    graph = {source.module: _modules(source, known) for source in sources}
    found: list[str] = []
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            found.append(" > ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for next_one in sorted(graph[module]):
                walk(next_one, (*path, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())
    return found


def _modules(source: Source, known: set[str]) -> set[str]:
    """The modules among the known ones that this one imports: `a.b.c` may be a module or a name in `a.b`."""
    named = (name if name in known else name.rpartition(".")[0] for name, _ in imports_of(source))
    return {module for module in named if module in known and module != source.module}
