"""What a reply is generated from: the context bundle, stored with the turn."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.openai import Message, Tool


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which model of which provider answers."""

    provider: str
    model: str


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A personality's sampling defaults; what the request names wins."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None


class Degradation(msgspec.Struct, frozen=True, kw_only=True):
    """How much the context is worth: which engines answered, and what is missing and why."""

    enabled_engines: tuple[str, ...] = ()
    cache_hits: tuple[str, ...] = ()
    degraded: bool = False
    degrade_reasons: tuple[str, ...] = ()
    timings: dict[str, float] = {}
    """Milliseconds per engine."""


class ContextBundle(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a reply is generated from, fixed when the turn was prepared: no turn mixes versions.

    `passthrough`: a raw provider model without session or personality; nothing of ours is added.
    """

    choice: ModelChoice
    sampling: Sampling = Sampling()
    system: tuple[str, ...] = ()
    history: tuple[Message, ...] = ()
    """Earlier messages of the session, oldest first; the request's own new ones are not among them."""
    incoming: tuple[Message, ...] = ()
    """The request's messages this turn is about, with its own system messages."""
    summary: str | None = None
    knowledge: tuple[dict[str, Any], ...] = ()
    memories: tuple[dict[str, Any], ...] = ()
    profile: tuple[dict[str, Any], ...] = ()
    token_budget: int | None = None
    tools: tuple[Tool, ...] = ()
    """Tools of ours the model may use, sorted by name."""
    personality_id: str | None = None
    personality_version: str | None = None
    passthrough: bool = False
    metadata: Degradation = Degradation()
