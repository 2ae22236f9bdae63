"""What a tool is. Built-in tools, plugins and MCP servers all come as this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from schemas.openai import Tool


class ToolFailed(Exception):
    """The tool could not do it. The message is shown to the model, so it names what to do differently."""


class RunnableTool(Protocol):
    """One tool. `idempotent`: running it twice with the same arguments does no harm, so it may be run again."""

    @property
    def spec(self) -> Tool:
        """Name, description and JSON schema, in OpenAI's form."""

    @property
    def idempotent(self) -> bool:
        """Whether a call that may have happened may happen again."""

    async def run(self, arguments: Mapping[str, Any], key: str) -> str:
        """Do it and say what came of it, as text for the model. Raises ToolFailed.

        `key` names this call and is the same at every try: a service that takes an idempotency key acts on it once.
        """
