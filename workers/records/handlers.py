"""The door of the records stage: each question of `schemas.records.Query`, and what answers it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from schemas.faults import InvalidValue, NotFound
from schemas.ids import is_id
from schemas.records import (
    Caller,
    CreateSession,
    DeleteSession,
    FindCaller,
    GetReply,
    GetSession,
    GetTurn,
    ListMessages,
    ListSessions,
    Page,
    Ping,
    Pong,
    Session,
    StopTurn,
    StoredReply,
    Turn,
    UpdateSession,
)
from workers.records.callers import CallerDesk
from workers.records.pages import (
    MAX_BYTES,
    message_page,
    message_place,
    page_limit,
    session_page,
    session_place,
)
from workers.records.stored_reply import stored_reply
from workers.stopping import Stopping
from workers.storage.sessions import Sessions
from workers.storage.turns_read import TurnsRead

T = TypeVar("T")
Handler = Callable[[Any], Awaitable[Any]]


class Records:
    """Answers questions. Raises the fault that the API should show, or psycopg errors.

    Every question about a session or a turn names the caller: what is another's is not found.
    """

    def __init__(self, callers: CallerDesk, sessions: Sessions, turns: TurnsRead, stopping: Stopping) -> None:
        self._callers, self._sessions, self._turns, self._stopping = callers, sessions, turns, stopping

    def handlers(self) -> dict[type[Any], Handler]:
        """Every question's kind and what answers it."""
        return {
            FindCaller: self.find_caller,
            CreateSession: self.create_session,
            ListSessions: self.list_sessions,
            GetSession: self.get_session,
            UpdateSession: self.update_session,
            DeleteSession: self.delete_session,
            ListMessages: self.list_messages,
            GetTurn: self.get_turn,
            StopTurn: self.stop_turn,
            GetReply: self.get_reply,
            Ping: self.ping,
        }

    async def find_caller(self, asked: FindCaller) -> Caller:
        return await self._callers.find(asked.key_hash)

    async def create_session(self, asked: CreateSession) -> Session:
        _require(is_id(asked.session_id))
        _require_storable(asked.title)
        return _found(await self._sessions.create(asked.user_id, asked.session_id, asked.personality_id, asked.title))

    async def list_sessions(self, asked: ListSessions) -> Page:
        limit = page_limit(asked.limit)
        found = await self._sessions.after(asked.user_id, session_place(asked.cursor), limit + 1)
        return session_page(found, limit)

    async def get_session(self, asked: GetSession) -> Session:
        _require(is_id(asked.session_id))
        return _found(await self._sessions.get(asked.user_id, asked.session_id))

    async def update_session(self, asked: UpdateSession) -> Session:
        _require(is_id(asked.session_id))
        _require_storable(asked.title)
        return _found(await self._sessions.update(asked.user_id, asked.session_id, asked.title, asked.personality_id))

    async def delete_session(self, asked: DeleteSession) -> None:
        _require(is_id(asked.session_id))
        _require(await self._sessions.delete(asked.user_id, asked.session_id))

    async def list_messages(self, asked: ListMessages) -> Page:
        limit, place = page_limit(asked.limit), message_place(asked.cursor)
        _require(is_id(asked.session_id))
        _found(await self._sessions.get(asked.user_id, asked.session_id))
        return message_page(await self._sessions.messages_after(asked.session_id, place, limit + 1, MAX_BYTES), limit)

    async def get_turn(self, asked: GetTurn) -> Turn:
        _require(is_id(asked.turn_id))
        return _found(await self._turns.get(asked.user_id, asked.turn_id))

    async def stop_turn(self, asked: StopTurn) -> Turn:
        _require(is_id(asked.turn_id))
        await self._stopping.stop(asked.turn_id, asked.user_id)
        return _found(await self._turns.get(asked.user_id, asked.turn_id))

    async def get_reply(self, asked: GetReply) -> StoredReply:
        _require(is_id(asked.turn_id))
        turn = _found(await self._turns.replied(asked.user_id, asked.turn_id))
        return stored_reply(turn, asked.after)

    async def ping(self, asked: Ping) -> Pong:
        asked_at = time.perf_counter()
        now = await self._turns.ping()
        return Pong(database_ms=(time.perf_counter() - asked_at) * 1000, database_time=now)


def _found(value: T | None) -> T:
    if value is None:
        raise NotFound
    return value


def _require(there: bool) -> None:
    if not there:
        raise NotFound


def _require_storable(title: str | None) -> None:
    if title is not None and "\0" in title:
        raise InvalidValue("The title holds a character that cannot be stored (U+0000).", param="title")
