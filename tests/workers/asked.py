"""Turns as gateways ask for them and owners end them, for tests of the stages and of what they store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.context import ContextBundle, ModelChoice
from schemas.ids import new_id, part_of
from schemas.openai import ChatRequest, FunctionCall, Message, ToolCall, Usage, UserMessage
from schemas.replies import Delta, measure
from schemas.turns import TurnRequested, TurnState
from workers.storage.arrivals import Arrivals
from workers.storage.database import Database
from workers.storage.turn_rows import Claimed, NewMessage, NewTurn, Reply
from workers.storage.turns import Turns
from workers.storage.upkeep import Upkeep

BUNDLE = ContextBundle(choice=ModelChoice(provider="scripted", model="scripted"))
OWNER, OTHER = new_id(), new_id()
"""Two worker processes."""


def chat(words: str | Sequence[Message] = "Hi", **changes: Any) -> ChatRequest:
    """A request for one answer."""
    messages = [UserMessage(content=words)] if isinstance(words, str) else list(words)
    body = {"model": "cozy/default", "messages": msgspec.to_builtins(messages)} | changes
    return msgspec.convert(body, ChatRequest)


def asked(user_id: str, request: ChatRequest | None = None, **changes: Any) -> TurnRequested:
    """A turn that a gateway asks for now."""
    turn_id, now = new_id(), time.time()
    fields: dict[str, Any] = {
        "turn_id": turn_id,
        "user_id": user_id,
        "request_id": "req-1",
        "request": request or chat(),
        "fingerprint": f"of {turn_id}",
        "verdict_subject": f"told.{turn_id}",
        "asked_at": now,
        "expires_at": now + 10,
    }
    return TurnRequested(**(fields | changes))


def new_turn(arrival: TurnRequested, session_id: str | None = None, **changes: Any) -> NewTurn:
    """The turn that is made of it: alone, unless a session is named."""
    fields: dict[str, Any] = {
        "arrival": arrival,
        "session_id": session_id or part_of(arrival.turn_id, "session"),
        "shard": 0,
        "state": TurnState.PREPARED,
        "personality_id": "default",
        "bundle": BUNDLE,
        "messages": [
            NewMessage(id=part_of(arrival.turn_id, "said", i), role="user", content=message.content)
            for i, message in enumerate(arrival.request.messages)
        ],
    }
    return NewTurn(**(fields | changes))


async def prepared(turns: Turns, user_id: str, **changes: Any) -> str:
    """A turn of its own that waits to be generated."""
    arrival = asked(user_id)
    assert await Arrivals(turns.database).open(new_turn(arrival, **changes)) is not None
    return arrival.turn_id


async def in_session(turns: Turns, user_id: str, session_id: str, words: str = "Hi", **changes: Any) -> str:
    """A turn of a session."""
    arrival = asked(user_id, chat(words))
    async with turns.database.transaction() as held:
        assert await Arrivals(turns.database).add(held, new_turn(arrival, session_id, **changes)) is not None
    return arrival.turn_id


async def claimed(turns: Turns, turn_id: str, round: int = 0, owner: str = OWNER) -> Claimed:
    """The turn in this worker's hands."""
    held = await turns.claim(turn_id, round, owner)
    assert held is not None
    return held


async def alive(turns: Turns, worker_id: str = OWNER, seconds: float = 60) -> None:
    """Let the worker be alive for so long."""
    await Upkeep(turns.database).renew_lease(worker_id, "generation", seconds)


def answer(turn_id: str, words: str, round: int = 0, **metadata: Any) -> NewMessage:
    """What an assistant said in a round."""
    return NewMessage(id=part_of(turn_id, "reply", round, 0), role="assistant", content=words, metadata=metadata)


def reply(*words: str, after: int = 0, **changes: Any) -> Reply:
    """What an owner has shown, word by word."""
    said = [Delta(1, after + i, each) for i, each in enumerate(words, 1)]
    length = digest = 0
    for delta in said:
        length, digest = measure(delta, length, digest)
    fields: dict[str, Any] = {"said": said, "shown_index": after + len(said), "shown_length": length}
    fields |= {"shown_digest": digest, "usage": Usage(completion_tokens=len(said)), "timings": {"finished_ms": 1.0}}
    return Reply(**(fields | changes))


def calls_of(turn_id: str, *names: str, round: int = 0) -> list[tuple[str, ToolCall]]:
    """Calls of tools of ours, each under its id."""
    return [
        (
            part_of(turn_id, "call", round, position),
            ToolCall(id=f"c{position}", function=FunctionCall(name=name, arguments="{}")),
        )
        for position, name in enumerate(names, 1)
    ]


async def finish(turns: Turns, held: Claimed, words: str = "Hello.") -> None:
    """End the turn well."""
    ended = await turns.finish(held, TurnState.COMPLETED, reply(words), [answer(held.turn_id, words)])
    assert ended is not None


class Column(msgspec.Struct):
    """One value of one row."""

    value: Any


async def column(database: Database, query: str, *values: Any) -> list[Any]:
    """The first column of a query with `%(a)s`, `%(b)s` and so on, named `value`."""
    params = dict(zip("abcdef", values, strict=False))
    return [row.value for row in await database.all(query, params, Column)]


async def let_age(database: Database, turn_id: str, seconds: float) -> None:
    """Let nothing have happened to the turn for so long."""
    age = "UPDATE turns SET touched_at = touched_at - make_interval(secs => %(age)s) WHERE id = %(id)s"
    await database.run(age, {"age": seconds, "id": turn_id})
