"""`GET /v1/personalities`: who there is to talk to."""

from __future__ import annotations

import msgspec
from litestar import get

from gateway.paging import DEFAULT_LIMIT, Cursor, Limit, page_of
from gateway.services import Asked, services_of
from schemas.personalities import Personality


class ShownPersonality(msgspec.Struct, frozen=True, kw_only=True):
    """A personality without its prompt, which is its author's."""

    id: str
    object: str = "personality"
    name: str
    description: str
    model: str
    tools: tuple[str, ...]
    version: str


class PersonalityPage(msgspec.Struct, frozen=True, kw_only=True):
    """Personalities, `default` first."""

    object: str = "list"
    data: list[ShownPersonality]
    has_more: bool
    next_cursor: str | None


def shown(personality: Personality) -> ShownPersonality:
    """What callers see of a personality."""
    return ShownPersonality(
        id=personality.id,
        name=personality.name,
        description=personality.description,
        model=personality.model.name,
        tools=personality.tools,
        version=personality.version,
    )


@get("/personalities", summary="List the personalities")
async def list_personalities(request: Asked, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> PersonalityPage:
    """Everyone a session can be held with."""
    people = services_of(request).config.personalities.all()
    data, following = page_of([person.id for person in people], people, limit, cursor)
    return PersonalityPage(data=[shown(p) for p in data], has_more=following is not None, next_cursor=following)
