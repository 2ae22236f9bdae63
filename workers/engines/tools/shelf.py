"""The tools there are, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ops.runtime.settings import Environment
from schemas.openai import Tool
from workers.engines.tools.clock import Clock
from workers.engines.tools.ledger import LEDGER_URL, ledgers
from workers.engines.tools.port import RunnableTool

BUILT_IN: tuple[RunnableTool, ...] = (Clock(),)


class ToolShelf:
    """Tools by name; the built-in ones unless others are given."""

    def __init__(self, tools: Iterable[RunnableTool] = BUILT_IN) -> None:
        self._tools = {tool.spec.function.name: tool for tool in tools}

    def get(self, name: str) -> RunnableTool | None:
        """The tool of that name."""
        return self._tools.get(name)

    def specs(self, names: Iterable[str], allowed: Iterable[str] | None) -> list[Tool]:
        """What a model is told of the named tools, sorted by name so that prompts are stable.

        `allowed`, where given, narrows them further. A name that is not on the shelf is left out.
        """
        wanted = set(names) if allowed is None else set(names) & set(allowed)
        return [self._tools[name].spec for name in sorted(wanted) if name in self._tools]


def standard_shelf(environment: Environment, environ: Mapping[str, str]) -> ToolShelf:
    """The built-in tools; in development, where a drill names its ledger in `environ`, those that write into it too."""
    url = environ.get(LEDGER_URL, "")
    return ToolShelf((*BUILT_IN, *ledgers(url)) if url and environment == "development" else BUILT_IN)
