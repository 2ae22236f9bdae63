"""Accepting a turn: its row is committed in PostgreSQL, and only then is its gateway told."""

from __future__ import annotations

import structlog

from ops.runtime.config import Config
from schemas.faults import IdempotencyMismatch, NotFound, SessionBusy
from schemas.ids import part_of
from schemas.openai import Message, Tool, ToolMessage, UserMessage
from schemas.subjects import shard_of
from schemas.turns import Accepted, TurnRequested, TurnState
from workers.context_fetch.intake import Answerer, answerer, bundle_of, incoming
from workers.engines.tools.shelf import ToolShelf
from workers.storage.arrivals import Arrivals
from workers.storage.turn_rows import Known, NewMessage, NewTurn

log = structlog.get_logger()


class Acceptance:
    """Takes turns in. Every method may be repeated: what is there already is found, not made again."""

    def __init__(self, arrivals: Arrivals, config: Config, shelf: ToolShelf) -> None:
        self.arrivals, self.config, self.shelf = arrivals, config, shelf

    async def accept(self, arrival: TurnRequested) -> tuple[Accepted, TurnState]:
        """Commit the turn and say what it became. Raises the Fault it is refused with."""
        if arrival.retried and not arrival.keyed:
            earlier = await self.arrivals.find_retried(arrival.user_id, arrival.fingerprint)
            if earlier is not None:
                return self._known(earlier, attached=True)
        cozy = arrival.request.cozy
        if cozy and cozy.session_id:
            accepted = await self._in_session(arrival, cozy.session_id)
        else:
            accepted = await self._alone(arrival)
        return accepted or await self._repeated(arrival)

    def bundle_tools(self, arrival: TurnRequested, who: Answerer) -> list[Tool]:
        """The tools of ours this turn may use: the personality's, narrowed by the request."""
        if who.personality is None:
            return []
        allowed = arrival.request.cozy.allowed_tools if arrival.request.cozy else None
        return self.shelf.specs(who.personality.tools, allowed)

    async def _alone(self, arrival: TurnRequested) -> tuple[Accepted, TurnState] | None:
        who = answerer(arrival.request, self.config.personalities, self.config.models)
        bundle = bundle_of(arrival.request, who, in_session=False, tools=self.bundle_tools(arrival, who))
        session_id = part_of(arrival.turn_id, "session")
        turn = NewTurn(
            arrival=arrival,
            session_id=session_id,
            shard=shard_of(session_id, self.config.storage.shards),
            state=TurnState.PREPARED,
            personality_id=bundle.personality_id,
            bundle=bundle,
            messages=_stored(arrival.turn_id, incoming(arrival.request).new),
        )
        created = await self.arrivals.open(turn)
        return _accepted(turn, created) if created is not None else None

    async def _in_session(self, arrival: TurnRequested, session_id: str) -> tuple[Accepted, TurnState] | None:
        brought = incoming(arrival.request)
        limits = self.config.context
        async with self.arrivals.database.transaction() as held:
            session = await self.arrivals.lock_session(held, session_id, arrival.user_id)
            if session is None:
                raise NotFound("There is no such session.", param="cozy.session_id")
            who = answerer(arrival.request, self.config.personalities, self.config.models, session.personality_id)
            busy = await self.arrivals.busy(held, session_id)
            if busy and await self.arrivals.find(arrival.turn_id):
                return None
            if busy and _on_busy(arrival, who) == "reject":
                raise SessionBusy()
            bundle = None
            if not busy:
                history = await self.arrivals.history(held, session_id, arrival.turn_id, limits.history_messages)
                bundle = bundle_of(
                    arrival.request,
                    who,
                    in_session=True,
                    history=history,
                    history_tokens=limits.history_tokens,
                    tools=self.bundle_tools(arrival, who),
                )
            turn = NewTurn(
                arrival=arrival,
                session_id=session_id,
                shard=shard_of(session_id, self.config.storage.shards),
                state=TurnState.PREPARED if bundle else TurnState.QUEUED,
                personality_id=who.personality.id if who.personality else None,
                bundle=bundle,
                messages=_stored(arrival.turn_id, brought.new),
                ignored_messages=brought.ignored,
            )
            created = await self.arrivals.add(held, turn)
        return _accepted(turn, created) if created is not None else None

    async def _repeated(self, arrival: TurnRequested) -> tuple[Accepted, TurnState]:
        known = await self.arrivals.find(arrival.turn_id)
        if known is None or known.user_id != arrival.user_id:
            raise NotFound("There is no such turn.")
        if known.fingerprint != arrival.fingerprint:
            raise IdempotencyMismatch()
        return self._known(known, attached=True)

    @staticmethod
    def _known(turn: Known, *, attached: bool) -> tuple[Accepted, TurnState]:
        verdict = Accepted(
            turn_id=turn.turn_id,
            session_id=turn.session_id,
            personality_id=turn.personality_id,
            shard=turn.shard,
            created=turn.created,
            ignored_messages=turn.ignored_messages,
            attached=attached,
        )
        return verdict, TurnState(turn.state)


def _accepted(turn: NewTurn, created: int) -> tuple[Accepted, TurnState]:
    verdict = Accepted(
        turn_id=turn.arrival.turn_id,
        session_id=turn.session_id,
        personality_id=turn.personality_id,
        shard=turn.shard,
        created=created,
        ignored_messages=turn.ignored_messages,
    )
    return verdict, turn.state


def _on_busy(arrival: TurnRequested, who: Answerer) -> str:
    asked = arrival.request.cozy.on_busy if arrival.request.cozy else None
    return asked or (who.personality.on_busy if who.personality else "queue")


def _stored(turn_id: str, new: tuple[Message, ...]) -> list[NewMessage]:
    stored = []
    for position, message in enumerate(new):
        metadata = {"tool_call_id": message.tool_call_id} if isinstance(message, ToolMessage) else {}
        role = "tool" if isinstance(message, ToolMessage) else "user"
        assert isinstance(message, ToolMessage | UserMessage)
        stored.append(
            NewMessage(id=part_of(turn_id, "said", position), role=role, content=message.content, metadata=metadata)
        )
    return stored
