"""The words of turns in PostgreSQL: the text so far, the whole at the end, and what a later turn remembers."""

from __future__ import annotations

import pytest

from schemas.ids import new_id, part_of
from schemas.openai import AssistantMessage, ToolMessage, UserMessage
from schemas.turns import TurnState
from tests.workers.asked import (
    OTHER,
    OWNER,
    answer,
    calls_of,
    claimed,
    column,
    finish,
    in_session,
    prepared,
    reply,
)
from tests.workers.storage.rows import add_session
from workers.storage import arrivals
from workers.storage.arrivals import Arrivals
from workers.storage.database import Database
from workers.storage.turn_rows import Claimed, NewMessage, Partial
from workers.storage.turns import Turns


async def messages_of(turns: Turns, turn_id: str) -> list[object]:
    query = "SELECT content AS value FROM messages WHERE turn_id = %(a)s ORDER BY ord"
    return await column(turns.database, query, turn_id)


async def fenced(turns: Turns, user_id: str) -> Claimed:
    """An owner whose turn somebody else holds by now."""
    turn_id = await prepared(turns, user_id)
    old = await claimed(turns, turn_id)
    await claimed(turns, turn_id, owner=OTHER)
    return old


def so_far(held: Claimed, text: str) -> Partial:
    """The text so far of the round in these hands."""
    message_id = part_of(held.turn_id, "reply", held.round, 0)
    return Partial(message_id=message_id, turn_id=held.turn_id, epoch=held.epoch, text=text)


async def test_a_fenced_owner_s_partial_text_is_not_kept(turns: Turns, user_id: str) -> None:
    old = await fenced(turns, user_id)
    await turns.keep_partial([so_far(old, "x")])
    assert await messages_of(turns, old.turn_id) == ["Hi"]


async def test_the_text_so_far_is_kept_and_the_end_replaces_it(turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    message = answer(held.turn_id, "Hello.")
    for text in ("He", "Hell"):
        await turns.keep_partial([so_far(held, text)])
        assert await messages_of(turns, held.turn_id) == ["Hi", text]
    await turns.finish(held, TurnState.COMPLETED, reply("Hello."), [message])
    await turns.keep_partial([so_far(held, "Hell")])
    assert await messages_of(turns, held.turn_id) == ["Hi", "Hello."]
    query = "SELECT metadata ? 'partial' AS value FROM messages WHERE id = %(a)s"
    assert await column(turns.database, query, message.id) == [False]


async def test_one_fenced_reply_does_not_keep_others_from_being_kept(turns: Turns, user_id: str) -> None:
    old, held = await fenced(turns, user_id), await claimed(turns, await prepared(turns, user_id))
    await turns.keep_partial([so_far(old, "x"), so_far(held, "x")])
    assert await messages_of(turns, old.turn_id) == ["Hi"]
    assert await messages_of(turns, held.turn_id) == ["Hi", "x"]


async def test_every_choice_is_kept_and_only_the_first_is_remembered(turns: Turns, user_id: str) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    both = [
        NewMessage(id=part_of(held.turn_id, "reply", 0, choice), role="assistant", content=f"c{choice}",
                   metadata={"choice": choice} if choice else {})
        for choice in (0, 1)
    ]  # fmt: skip
    await turns.finish(held, TurnState.COMPLETED, reply("c0", "c1"), both)
    assert await messages_of(turns, held.turn_id) == ["Hi", "c0", "c1"]
    history = await Arrivals(turns.database).history(turns.database, held.session_id, new_id(), 10)
    assert history == [UserMessage(content="Hi"), AssistantMessage(content="c0")]


async def test_a_session_s_history_is_what_was_said_before_a_turn_oldest_first(
    turns: Turns, user_id: str, database: Database
) -> None:
    session_id = await add_session(database, user_id)
    for words in ("1", "2"):
        turn_id = await in_session(turns, user_id, session_id, words)
        await finish(turns, await claimed(turns, turn_id), f"re {words}")
    turn_id = await in_session(turns, user_id, session_id, "3")
    history = await Arrivals(turns.database).history(database, session_id, turn_id, 10)
    assert [message.content for message in history] == ["1", "re 1", "2", "re 2"]
    newest = await Arrivals(turns.database).history(database, session_id, turn_id, 3)
    assert [message.content for message in newest] == ["re 1", "2", "re 2"]


async def test_a_history_holds_tool_calls_and_their_answers_and_what_was_said_of_a_reply_that_broke_off(
    turns: Turns, user_id: str
) -> None:
    held = await claimed(turns, await prepared(turns, user_id))
    calls = calls_of(held.turn_id, "clock")
    message = NewMessage(
        id=part_of(held.turn_id, "reply", 0, 0),
        role="assistant",
        content=None,
        metadata={"tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]},
    )
    assert await turns.call_tools(held, reply(), message, calls)
    tools = await turns.claim_tools(held.turn_id, 0, OWNER)
    assert tools
    assert await turns.finish_tools(tools, [(part_of(held.turn_id, "result", 0, 0), "c1", "noon")])
    again = await claimed(turns, held.turn_id, round=1)
    await turns.keep_partial([so_far(again, "It")])
    asked_for = AssistantMessage(content=None, tool_calls=[calls[0][1]])
    told = ToolMessage(content="noon", tool_call_id="c1")
    assert await turns.steps(held.turn_id) == [asked_for, told]
    history = await Arrivals(turns.database).history(turns.database, held.session_id, new_id(), 10)
    assert history == [UserMessage(content="Hi"), asked_for, told, AssistantMessage(content="It")]


async def test_a_history_has_a_limit_in_bytes(
    turns: Turns, user_id: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "HISTORY_BYTES", 30)
    session_id = await add_session(database, user_id)
    for words in ("a" * 20, "b" * 20, "c"):
        await finish(turns, await claimed(turns, await in_session(turns, user_id, session_id, words)), "yes")
    history = await Arrivals(database).history(database, session_id, new_id(), 10)
    assert [message.content for message in history] == ["yes", "c", "yes"]
