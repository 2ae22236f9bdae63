"""The manual for authors of AI engines.

An engine is a class that inherits from `AIEngine`, sets `api_version = 1`, takes `(name, settings)` when it is made,
and turns a `ModelCall` into lists of `Chunk`. Time limits, retries before the first chunk and the log line of each
call are the house's (`guard.py`): an engine makes one attempt, and raises a Fault of `schemas.faults` where it fails:

- `EngineOverloaded` with `retry_after` (seconds): the server asked for patience;
- `EngineFailed`: it broke, broke off, or said what nobody can read; `EngineTimeout`: it could not be connected to;
- `EngineRefused`, `ModelNotFound`: asking again would not help.

A fault's message never holds a user's words or a key. What the server itself said goes to `details`, not to logs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from schemas.openai import Message, Tool
from workers.engines.ai.answer import ModelAnswer, whole
from workers.engines.ai.chunks import Chunk
from workers.engines.port import Engine

API_VERSION = 1


class ModelCall(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked. None means: not said, so the server's default holds."""

    model: str
    messages: Sequence[Message]
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    response_format: dict[str, Any] | None = None
    tools: Sequence[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    prefix: str | None = None
    """What the assistant has said already; the answer goes on right behind it. Only for providers whose `resume` is
    `prefill`."""
    headers: dict[str, str] = {}
    """`x-scripted-*`, for the scripted model server. Every other engine leaves them out."""


class AIEngine(Engine):
    """A way to reach models. Made with `(name, settings)`: the provider's name in engines.yaml and what it says."""

    def supports_tools(self, model: str) -> bool:
        """Whether `model` can call tools."""
        return True

    def supports_vision(self, model: str) -> bool:
        """Whether `model` can read images."""
        return True

    def chat_stream(self, call: ModelCall) -> AsyncGenerator[list[Chunk], None]:
        """Ask, and yield what arrives: each list holds the chunks that came together, none is empty.

        Ends when the answer is complete. Closing the generator closes the connection to the server at once: hold it
        with `contextlib.aclosing`. Raises a Fault, before the first chunk or after.
        """
        raise NotImplementedError

    async def chat(self, call: ModelCall) -> ModelAnswer:
        """The whole answer at once: what `chat_stream` says, folded."""
        return await whole(self.chat_stream(call))
