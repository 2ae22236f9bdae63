"""The shelf: tools by name, and what a model is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ops.runtime.settings import Environment
from schemas.openai import FunctionSpec, Tool
from workers.engines.tools.clock import Clock
from workers.engines.tools.ledger import LEDGER_URL
from workers.engines.tools.port import RunnableTool
from workers.engines.tools.shelf import ToolShelf, standard_shelf


class Named:
    """A tool that is only a name."""

    idempotent = True

    def __init__(self, name: str) -> None:
        self.spec = Tool(function=FunctionSpec(name=name))

    async def run(self, arguments: Mapping[str, Any], key: str) -> str:
        return self.spec.function.name


SHELF = ToolShelf([Named("zebra"), Named("ant"), Named("bee")])


def names(told: list[Tool]) -> list[str]:
    return [tool.function.name for tool in told]


def test_a_tool_is_found_by_its_name() -> None:
    found = SHELF.get("ant")
    assert isinstance(found, Named)
    assert SHELF.get("cat") is None


def test_the_clock_comes_with_the_house() -> None:
    clock: RunnableTool | None = ToolShelf().get("clock")
    assert isinstance(clock, Clock)


@pytest.mark.parametrize(
    ("wanted", "allowed", "told"),
    [
        (("zebra", "ant"), None, ["ant", "zebra"]),
        (("ant", "ant"), None, ["ant"]),
        (("ant", "cat"), None, ["ant"]),
        (("ant", "bee"), ["bee", "zebra"], ["bee"]),
        (("ant", "bee"), [], []),
        ((), None, []),
    ],
)
def test_a_model_is_told_of_the_tools_it_may_use_in_a_stable_order(
    wanted: tuple[str, ...], allowed: list[str] | None, told: list[str]
) -> None:
    assert names(SHELF.specs(wanted, allowed)) == told


@pytest.mark.parametrize(
    ("environment", "environ", "there"),
    [
        ("development", {LEDGER_URL: "http://127.0.0.1:1"}, True),
        ("development", {}, False),
        ("production", {LEDGER_URL: "http://127.0.0.1:1"}, False),
        ("test", {LEDGER_URL: "http://127.0.0.1:1"}, False),
    ],
)
def test_a_drill_s_tools_are_there_for_a_drill_in_development_alone(
    environment: Environment, environ: dict[str, str], there: bool
) -> None:
    shelf = standard_shelf(environment, environ)
    assert shelf.get("clock")
    assert [bool(shelf.get(name)) for name in ("ledger_keyed", "ledger_once")] == [there, there]
