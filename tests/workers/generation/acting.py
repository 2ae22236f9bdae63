"""A model that follows a script, joined to the engines by the same door as any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from ops.runtime.config import Config
from workers.engines.ai.chunks import Chunk
from workers.engines.ai.pool import EnginePool
from workers.engines.ai.port import API_VERSION, AIEngine, ModelCall
from workers.plugins.registry import Registry

Line = list[Chunk] | Exception | asyncio.Event
"""What a model does next: says something, breaks off, or falls silent until the event."""


class Script:
    """What the model does at each call, and what it was asked."""

    def __init__(self) -> None:
        self.answers: list[list[Line]] = []
        self.calls: list[ModelCall] = []
        self.silent = asyncio.Event()

    def says(self, *lines: Line) -> None:
        """Have the next call answered by these lines."""
        self.answers.append(list(lines))

    async def perform(self, call: ModelCall) -> AsyncGenerator[list[Chunk], None]:
        self.calls.append(call)
        for line in self.answers.pop(0):
            if isinstance(line, asyncio.Event):
                self.silent.set()
                await line.wait()
            elif isinstance(line, Exception):
                raise line
            else:
                yield line


def pool_of(config: Config, script: Script) -> EnginePool:
    """Engines that follow the script; a call that fails is not made again."""

    class Actor(AIEngine):
        api_version = API_VERSION

        def __init__(self, name: str, settings: Any) -> None:
            self.name = name

        async def initialize(self) -> None:
            """Nothing is needed."""

        async def health_check(self) -> dict[str, Any]:
            return {}

        async def close(self) -> None:
            """Nothing is held."""

        def chat_stream(self, call: ModelCall) -> AsyncGenerator[list[Chunk], None]:
            return script.perform(call)

    registry: Registry[AIEngine] = Registry("AI", API_VERSION)
    registry.register("openai", Actor)
    return EnginePool(config.models, msgspec.structs.replace(config.engines.generation, retries=0), registry)


def resuming(config: Config, resume: str) -> Config:
    """The configuration with a provider that resumes this way."""
    provider = msgspec.structs.replace(config.models.providers["scripted"], resume=resume)
    return msgspec.structs.replace(
        config, catalogue=msgspec.structs.replace(config.models, providers={"scripted": provider})
    )
