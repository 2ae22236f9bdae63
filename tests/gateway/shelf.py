"""What the page needs of a records worker: one user's sessions, what was said in them, and replies under way."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway import page
from gateway.callers import hash_of
from schemas import codec
from schemas.ids import new_id
from schemas.records import (
    CreateSession,
    GetReply,
    GetSession,
    ListMessages,
    Page,
    Session,
    StopTurn,
    StoredMessage,
    StoredReply,
    Turn,
    UpdateSession,
)
from schemas.replies import Delta, Snapshot
from tests.gateway.conftest import USER
from tests.gateway.peers import RecordsPeer

NOW = "2026-01-02T03:04:05Z"


class Shelf:
    """What the records worker would keep: one user's sessions, what was said in them, and their turns."""

    def __init__(self, records: RecordsPeer) -> None:
        self.sessions: dict[str, Session] = {}
        self.messages: list[StoredMessage] = []
        self.replies: dict[str, str] = {}
        """The words so far of replies under way, by turn."""
        self.stops: asyncio.Queue[str] = asyncio.Queue()
        self.asked_for_reply = asyncio.Event()
        records.callers[hash_of(page.DEVELOPMENT_KEY.encode())] = USER
        records.answers[CreateSession] = records.answers[UpdateSession] = self._session
        records.answers[GetSession] = lambda query: self.sessions[query.session_id]
        records.answers[ListMessages] = lambda _: Page(data=self.messages)
        records.answers[StopTurn] = self._stop
        records.answers[GetReply] = self._reply

    def _session(self, query: Any) -> Session:
        self.sessions[query.session_id] = Session(
            id=query.session_id, title=None, personality_id=query.personality_id, message_count=0,
            last_message_at=None, created_at=NOW,
        )  # fmt: skip
        return self.sessions[query.session_id]

    def _stop(self, query: StopTurn) -> Turn:
        self.stops.put_nowait(query.turn_id)
        return Turn(
            id=query.turn_id, state="generating", session_id="", model="m", personality_id=None, attempts=1,
            usage=None, timings={}, created_at=NOW, finished_at=None,
        )  # fmt: skip

    def _reply(self, query: GetReply) -> StoredReply:
        self.asked_for_reply.set()
        said = [Delta(1, 1, self.replies[query.turn_id])] if query.after < 1 else []
        frames = [codec.encode(Snapshot(1, 1, said))] if said else []
        return StoredReply(
            turn_id=query.turn_id, session_id=new_id(), personality_id="default", model="m", shard=0, created=1,
            state="generating", frames=frames,
        )  # fmt: skip

    def put(self, role: str, text: str, turn_id: str | None = None) -> None:
        self.messages.append(
            StoredMessage(
                id=f"m{len(self.messages)}", role=role, content=text, turn_id=turn_id, parent_id=None, created_at=NOW,
                metadata={},
            )
        )  # fmt: skip
