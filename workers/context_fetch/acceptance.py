"""Accepting a turn: its row is committed in PostgreSQL, and only then is its gateway told."""

from __future__ import annotations

import msgspec
import structlog

from ops.runtime.config import Config
from schemas.context import ContextBundle
from schemas.faults import IdempotencyMismatch, InvalidValue, NotFound, SessionBusy, StorageUnavailable
from schemas.ids import part_of
from schemas.openai import Message, Tool, ToolMessage, UserMessage
from schemas.subjects import shard_of
from schemas.turns import Accepted, TurnRequested, TurnState
from workers.context_fetch.intake import NOTHING_NEW, Answerer, Incoming, answerer, bundle_of, incoming
from workers.engines.tools.shelf import ToolShelf
from workers.stopping import Stopping
from workers.storage.arrivals import Arrivals
from workers.storage.database import Connection, Database
from workers.storage.turn_rows import Known, NewMessage, NewTurn, Placed, StoppedRow

log = structlog.get_logger()


class TooLate(StorageUnavailable):
    """Its gateway gives the turn up, or has: taking it now would do what its client was told did not happen."""

    summary = "The turn could not be stored in time, and was not accepted. Try again shortly."


class Acceptance:
    """Takes turns in. Every method may be repeated: what is there already is found, not made again."""

    def __init__(self, arrivals: Arrivals, stopping: Stopping, config: Config, shelf: ToolShelf) -> None:
        self.arrivals, self.stopping, self.config, self.shelf = arrivals, stopping, config, shelf

    async def accept(self, arrival: TurnRequested) -> tuple[Accepted, TurnState]:
        """Commit the turn before its time is over, and say what it became. Raises the Fault it is refused with."""
        session_id = arrival.request.cozy.session_id if arrival.request.cozy else None
        return await (self._in_session(arrival, session_id) if session_id else self._alone(arrival))

    def bundle_tools(self, arrival: TurnRequested, who: Answerer) -> list[Tool]:
        """The tools of ours this turn may use: the personality's, narrowed by the request."""
        if who.personality is None:
            return []
        allowed = arrival.request.cozy.allowed_tools if arrival.request.cozy else None
        return self.shelf.specs(who.personality.tools, allowed)

    def bundle_alone(self, arrival: TurnRequested) -> ContextBundle:
        """What a turn that stands alone is generated from."""
        who = answerer(arrival.request, self.config.personalities, self.config.models)
        return bundle_of(arrival.request, who, in_session=False, tools=self.bundle_tools(arrival, who))

    async def bundle_in_session(
        self, held: Connection | Database, arrival: TurnRequested, session_id: str, who: Answerer
    ) -> ContextBundle:
        """What a turn of a session is generated from, as things stand: nothing before it may be unanswered."""
        limits = self.config.context
        return bundle_of(
            arrival.request,
            who,
            in_session=True,
            history=await self.arrivals.history(held, session_id, arrival.turn_id, limits.history_messages),
            history_tokens=limits.history_tokens,
            tools=self.bundle_tools(arrival, who),
        )

    async def _alone(self, arrival: TurnRequested) -> tuple[Accepted, TurnState]:
        if arrival.retried and (known := await self._earlier(arrival)):
            return _known(known)
        bundle = self.bundle_alone(arrival)
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
        placed = await self.arrivals.open(turn)
        return _accepted(turn, placed) if placed else await self._repeated(arrival)

    async def _in_session(self, arrival: TurnRequested, session_id: str) -> tuple[Accepted, TurnState]:
        async with self.arrivals.beside_no_other(session_id, arrival.user_id) as held:
            stopped, answer = await self._place(held, arrival, session_id)
        if answer is None:  # said after the commit, which keeps copies of this question from being accepted
            raise SessionBusy()
        await self.stopping.tell(stopped)
        return answer

    async def _place(
        self, held: Connection, arrival: TurnRequested, session_id: str
    ) -> tuple[list[StoppedRow], tuple[Accepted, TurnState] | None]:
        """What the turn stops, and what it became; None where the session is busy and it will not wait."""
        brought, stopped = incoming(arrival.request), list[StoppedRow]()
        if not brought.new:
            raise InvalidValue(NOTHING_NEW, param="messages")
        session = await self.arrivals.lock_session(held, session_id, arrival.user_id)
        if session is None:
            raise NotFound("There is no such session.", param="cozy.session_id")
        who = answerer(arrival.request, self.config.personalities, self.config.models, session.personality_id)
        busy = await self.arrivals.busy(held, session_id)
        if (busy or arrival.retried) and (known := await self._earlier(arrival, held)):
            return stopped, _known(known)
        if busy and _on_busy(arrival, who) == "reject":
            await self.arrivals.refuse(held, arrival)
            return stopped, None
        if busy and _on_busy(arrival, who) == "interrupt":
            stopped = await self.stopping.stop_before(held, session_id, arrival.user_id)
            busy = await self.arrivals.busy(held, session_id)
        turn = self._turn_of(arrival, session_id, who, brought)
        if not busy:
            bundle = await self.bundle_in_session(held, arrival, session_id, who)
            turn = msgspec.structs.replace(turn, state=TurnState.PREPARED, bundle=bundle)
        placed = await self.arrivals.add(held, turn)
        if placed is None:  # too late, perhaps: a refusal undoes the stops as well
            return stopped, await self._repeated(arrival, held)
        return stopped, _accepted(turn, placed)

    def _turn_of(self, arrival: TurnRequested, session_id: str, who: Answerer, brought: Incoming) -> NewTurn:
        return NewTurn(
            arrival=arrival,
            session_id=session_id,
            shard=shard_of(session_id, self.config.storage.shards),
            state=TurnState.QUEUED,
            personality_id=who.personality.id if who.personality else None,
            bundle=None,
            messages=_stored(arrival.turn_id, brought.new),
            ignored_messages=brought.ignored,
        )

    async def _repeated(self, arrival: TurnRequested, held: Connection | None = None) -> tuple[Accepted, TurnState]:
        """Nothing was stored: the turn is there already, or its time was over."""
        known = await self._earlier(arrival, held)
        if known is None:
            raise TooLate
        return _known(known)

    async def _earlier(self, arrival: TurnRequested, held: Connection | None = None) -> Known | None:
        """The same request's turn, if it is there: by its id, or where it has no key by what it says."""
        known = await self.arrivals.find(arrival.turn_id, held)
        if known is None:
            return None if arrival.keyed else await self.arrivals.find_same(arrival, held)
        if known.user_id != arrival.user_id:
            raise NotFound("There is no such turn.")
        if known.fingerprint != arrival.fingerprint:
            raise IdempotencyMismatch()
        return known


def _known(turn: Known) -> tuple[Accepted, TurnState]:
    verdict = Accepted(
        turn_id=turn.turn_id,
        session_id=turn.session_id,
        personality_id=turn.personality_id,
        shard=turn.shard,
        created=turn.created,
        ignored_messages=turn.ignored_messages,
        attached=True,
    )
    return verdict, TurnState(turn.state)


def _accepted(turn: NewTurn, placed: Placed) -> tuple[Accepted, TurnState]:
    verdict = Accepted(
        turn_id=turn.arrival.turn_id,
        session_id=turn.session_id,
        personality_id=turn.personality_id,
        shard=turn.shard,
        created=placed.created,
        ignored_messages=turn.ignored_messages,
    )
    return verdict, placed.state


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
