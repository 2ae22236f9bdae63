"""A registry: one kind of engine, from the provider kinds of the configuration to classes. It is a factory too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from workers.engines.port import Engine

E = TypeVar("E", bound=Engine)


class PluginRefused(Exception):
    """This class cannot serve here; the message says why."""


class Registry(Generic[E]):
    """The classes that can serve one kind of engine, by provider kind. Built-in ones join by the same `register`."""

    def __init__(self, kind: str, api_version: int) -> None:
        self.kind = kind
        self._api_version = api_version
        self._makers: dict[str, Callable[[str, Any], E]] = {}

    def register(self, provider_kind: str, engine: type[E]) -> None:
        """Let `engine` serve `provider_kind`. Raises PluginRefused for another port version and for a taken name."""
        declared = getattr(engine, "api_version", None)
        if declared != self._api_version:
            raise PluginRefused(
                f"{engine.__qualname__} declares api_version {declared!r}; {self.kind} needs {self._api_version}."
            )
        if provider_kind in self._makers:
            raise PluginRefused(f"{engine.__qualname__}: {self.kind} provider kind {provider_kind!r} is taken.")
        self._makers[provider_kind] = engine

    def create(self, provider_kind: str, name: str, settings: Any) -> E:
        """A new engine for the provider `name`, not yet initialized. Raises PluginRefused for an unknown kind."""
        maker = self._makers.get(provider_kind)
        if maker is None:
            known = ", ".join(self.kinds()) or "none"
            raise PluginRefused(f"No {self.kind} engine for provider kind {provider_kind!r}; there are: {known}.")
        return maker(name, settings)

    def kinds(self) -> list[str]:
        """The provider kinds that can be served, sorted."""
        return sorted(self._makers)
