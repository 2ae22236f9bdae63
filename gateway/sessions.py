"""`/v1/chat/sessions`: conversations and their messages. The records worker keeps them; here they get their HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import delete, get, patch, post
from litestar.params import FromPath
from msgspec import UNSET, Meta, UnsetType

from gateway import body
from gateway.paging import DEFAULT_LIMIT, Cursor, Limit, checked
from gateway.records_client import NOTHING
from gateway.services import Asked, Services, services_of
from ops.runtime.personalities import DEFAULT
from schemas.faults import InvalidValue, NotFound
from schemas.ids import is_id, new_id
from schemas.records import (
    CreateSession,
    DeleteSession,
    GetSession,
    ListMessages,
    ListSessions,
    Page,
    Session,
    StoredMessage,
    UpdateSession,
)

Title = Annotated[str, Meta(max_length=200, description="At most 200 characters.")]


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """What a new session starts with."""

    personality_id: str | None = None
    title: Title | None = None


class SessionChange(msgspec.Struct, frozen=True, kw_only=True):
    """What changes; what is left out stays. A title of null or "" takes the title away."""

    title: Title | UnsetType | None = UNSET
    personality_id: str | UnsetType = UNSET


class SessionPage(Page, frozen=True, kw_only=True):
    """Sessions, newest first."""

    data: list[Session]


class MessagePage(Page, frozen=True, kw_only=True):
    """Messages, oldest first."""

    data: list[StoredMessage]


def existing_id(text: str) -> str:
    """The id, where it can be one. A malformed id names nothing: raises NotFound."""
    if not is_id(text):
        raise NotFound()
    return text


def known_personality(services: Services, id_: str) -> str:
    """The id of a personality there is. Raises InvalidValue."""
    if services.config.personalities.get(id_) is None:
        raise InvalidValue("There is no such personality.", param="personality_id")
    return id_


@post("/chat/sessions", summary="Start a session", reads=NewSession)
async def create_session(request: Asked) -> Session:
    """A new, empty session with a personality (the default one where none is named)."""
    services = services_of(request)
    asked = await body.read(request.scope, request.receive, NewSession, services.config.api.max_body_bytes, empty=b"{}")
    personality = known_personality(services, DEFAULT if asked.personality_id is None else asked.personality_id)
    query = CreateSession(
        user_id=request.user.user_id, session_id=new_id(), personality_id=personality, title=asked.title or None
    )
    return await services.records.ask(query, Session)


@get("/chat/sessions", summary="List the sessions")
async def list_sessions(request: Asked, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> SessionPage:
    """The caller's sessions, newest first."""
    query = ListSessions(user_id=request.user.user_id, limit=limit, cursor=checked(cursor))
    return await services_of(request).records.ask(query, SessionPage)


@get("/chat/sessions/{session_id:str}", summary="One session")
async def get_session(request: Asked, session_id: FromPath[str]) -> Session:
    """A session of the caller's."""
    query = GetSession(user_id=request.user.user_id, session_id=existing_id(session_id))
    return await services_of(request).records.ask(query, Session)


@patch("/chat/sessions/{session_id:str}", summary="Change a session", reads=SessionChange)
async def change_session(request: Asked, session_id: FromPath[str]) -> Session:
    """Another title or personality. Turns already asked keep the personality they began with."""
    services = services_of(request)
    id_ = existing_id(session_id)
    change = await body.read(request.scope, request.receive, SessionChange, services.config.api.max_body_bytes)
    fields: dict[str, Any] = {}
    if change.title is not UNSET:
        fields["title"] = change.title or ""
    if change.personality_id is not UNSET:
        fields["personality_id"] = known_personality(services, change.personality_id)
    return await services.records.ask(UpdateSession(user_id=request.user.user_id, session_id=id_, **fields), Session)


@delete("/chat/sessions/{session_id:str}", summary="Delete a session")
async def delete_session(request: Asked, session_id: FromPath[str]) -> None:
    """The session and its messages are gone from every list."""
    query = DeleteSession(user_id=request.user.user_id, session_id=existing_id(session_id))
    await services_of(request).records.ask(query, NOTHING)


@get("/chat/sessions/{session_id:str}/messages", summary="List a session's messages")
async def list_messages(
    request: Asked, session_id: FromPath[str], limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> MessagePage:
    """What was said in a session of the caller's."""
    query = ListMessages(
        user_id=request.user.user_id, session_id=existing_id(session_id), limit=limit, cursor=checked(cursor)
    )
    return await services_of(request).records.ask(query, MessagePage)
