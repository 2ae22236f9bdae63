"""A personality: who answers, with which model, how. One YAML file each, in `ops/config/personalities`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model answers, and how freely."""

    name: str = "default"
    """A model of the allow-list in `engines.yaml`, or `default` for the one configured there."""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None


class MemoryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is remembered of a conversation."""

    read: bool = True
    write: bool = True


class VoicePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the personality sounds."""

    voice: str = "default"
    speed: Annotated[float, Meta(ge=0.25, le=4)] = 1.0


class Personality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One personality. `id` is also its model name: `cozy/<id>`."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    description: Annotated[str, Meta(max_length=500)] = ""
    prompt: Annotated[str, Meta(min_length=1, max_length=100_000)]
    model: ModelSettings = ModelSettings()
    tools: tuple[str, ...] = ()
    """Names of the tools it may use."""
    memory: MemoryPolicy = MemoryPolicy()
    voice: VoicePolicy = VoicePolicy()
    on_busy: Literal["queue", "reject", "interrupt"] = "queue"
    """What a message does that arrives while the session is answering another."""
    version: str = ""
    """Hash of the file, set when it is read."""
