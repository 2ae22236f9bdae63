"""The engines of a process: one with its connections per provider, handed out per provider and model."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from ops.runtime.models import ModelCatalogue
from ops.runtime.settings import Generation
from schemas.context import ModelChoice
from schemas.faults import EngineTimeout, Fault, ModelNotFound
from workers.engines.ai.guard import GuardedEngine
from workers.engines.ai.openai_compatible import OpenAICompatible
from workers.engines.ai.port import API_VERSION, AIEngine
from workers.plugins.registry import Registry

log = structlog.get_logger()
HEALTH_TIMEOUT = 2.0
"""Seconds a provider has to show that it is well."""


def built_in() -> Registry[AIEngine]:
    """The AI engines that come with the house."""
    registry: Registry[AIEngine] = Registry("AI", API_VERSION)
    registry.register("openai", OpenAICompatible)
    return registry


class EnginePool:
    """Makes engines when they are first asked for and keeps them until `close`."""

    def __init__(self, models: ModelCatalogue, limits: Generation, registry: Registry[AIEngine] | None = None) -> None:
        self._models = models
        self._limits = limits
        self._registry = registry or built_in()
        self._providers: dict[str, AIEngine] = {}
        self._engines: dict[ModelChoice, GuardedEngine] = {}
        self._making = asyncio.Lock()

    async def initialize(self) -> None:
        """Make every provider's engine now rather than in the first reply: its TLS context alone takes 0.1 s."""
        for name in self._models.providers:
            await self._provider(name)

    async def engine(self, choice: ModelChoice) -> GuardedEngine:
        """The engine for a model of a provider, the same one each time. ModelNotFound: there is no such provider."""
        if choice not in self._engines:
            shared = await self._provider(choice.provider)
            engine = GuardedEngine(shared, choice, self._limits, self._models.traits(choice))
            if self._engines.setdefault(choice, engine) is engine:
                log.info("engine_client_created", provider=choice.provider, model=choice.model)
        return self._engines[choice]

    async def health_check(self) -> dict[str, Any]:
        """Each provider's facts or its fault's code, asked side by side. A provider that is away is an answer too."""
        names = list(self._models.providers)
        return dict(zip(names, await asyncio.gather(*map(self._health_of, names)), strict=True))

    async def close(self) -> None:
        """Close every engine. One that fails to is logged and does not keep the others open."""
        providers, self._providers = self._providers, {}
        self._engines.clear()
        results = await asyncio.gather(*(engine.close() for engine in providers.values()), return_exceptions=True)
        for name, result in zip(providers, results, strict=True):
            if isinstance(result, Exception):
                log.warning("engine_close_failed", provider=name, error=type(result).__name__)

    async def _provider(self, name: str) -> AIEngine:
        settings = self._models.providers.get(name)
        if settings is None:
            raise ModelNotFound("The model's provider is not configured.")
        async with self._making:
            if name not in self._providers:
                engine = self._registry.create(settings.kind, name, settings)
                await engine.initialize()
                self._providers[name] = engine
            return self._providers[name]

    async def _health_of(self, name: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT):
                return {"status": "ok", **await (await self._provider(name)).health_check()}
        except TimeoutError:
            return {"status": "failed", "code": EngineTimeout.code}
        except Fault as fault:
            return {"status": "failed", "code": fault.code}
