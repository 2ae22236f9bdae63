"""How Hypothesis tries a property in this house. A folder with properties calls `settle` in its conftest."""

from __future__ import annotations

from hypothesis import settings

PROFILE = "house"
settings.register_profile(PROFILE, max_examples=60, deadline=None)


def settle() -> None:
    """Few examples, since every run tries others; no deadline, since a busy machine is no mistake of the code."""
    settings.load_profile(PROFILE)
