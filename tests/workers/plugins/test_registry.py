"""Finding the class for a provider kind."""

from __future__ import annotations

from typing import Any

import pytest

from workers.engines.port import Engine
from workers.plugins.registry import PluginRefused, Registry


class Fine(Engine):
    """An engine for version 1."""

    api_version = 1

    def __init__(self, name: str, settings: Any) -> None:
        self.made_with = name, settings

    async def initialize(self) -> None: ...
    async def health_check(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None: ...


class Newer(Fine):
    """An engine for a version to come."""

    api_version = 2


class Silent:
    """A class that declares nothing."""


def test_a_registered_class_is_made_with_name_and_settings() -> None:
    registry: Registry[Fine] = Registry("AI", 1)
    registry.register("fine", Fine)
    assert registry.create("fine", "home", {"a": 1}).made_with == ("home", {"a": 1})


@pytest.mark.parametrize("engine", [Newer, Silent])
def test_a_class_for_another_version_is_refused_by_name(engine: Any) -> None:
    with pytest.raises(PluginRefused, match=f"{engine.__name__} declares api_version .*needs 1"):
        Registry("AI", 1).register("x", engine)


def test_a_taken_kind_is_not_replaced() -> None:
    registry: Registry[Fine] = Registry("AI", 1)
    registry.register("fine", Fine)
    with pytest.raises(PluginRefused, match="taken"):
        registry.register("fine", Fine)


def test_an_unknown_kind_is_told_the_known_ones() -> None:
    registry: Registry[Fine] = Registry("AI", 1)
    registry.register("fine", Fine)
    with pytest.raises(PluginRefused, match="there are: fine"):
        registry.create("fin", "home", None)
