"""What the stages tell of the engines they use."""

from __future__ import annotations

import msgspec


class EngineHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider was when it was last asked. `code`: the fault it answered with, where it is not well."""

    ok: bool
    code: str | None = None
    latency_ms: float | None = None


class EnginesHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The model servers, by provider."""

    providers: dict[str, EngineHealth]
