"""Tools that tests watch, and turns that call them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from schemas.openai import FunctionCall, FunctionSpec, Tool, ToolCall
from tests.workers.asked import BUNDLE, answer, asked, claimed, new_turn, reply
from workers.engines.tools.port import ToolFailed
from workers.storage.arrivals import Arrivals
from workers.storage.turn_rows import AskedCall
from workers.storage.turns import Turns


class Watched:
    """A tool that counts its effects and does what its arguments say."""

    def __init__(self, name: str, *, idempotent: bool = True) -> None:
        self.spec = Tool(function=FunctionSpec(name=name))
        self.idempotent = idempotent
        self.effects: list[Mapping[str, Any]] = []
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()

    async def run(self, arguments: Mapping[str, Any], key: str) -> str:
        self.effects.append(arguments)
        self.started.set()
        match arguments.get("do"):
            case "wait":
                await self.go_on.wait()
            case "fail":
                raise ToolFailed("Ask for tea instead.")
            case "cancel":
                raise asyncio.CancelledError
            case "break":
                raise LookupError("a secret")
        return str(arguments.get("say", "done"))


async def calling(turns: Turns, user_id: str, *calls: tuple[str, str]) -> str:
    """A turn whose model has called these tools of ours: name and arguments."""
    tools = tuple(Tool(function=FunctionSpec(name=name)) for name in sorted({name for name, _ in calls}))
    bundle = type(BUNDLE)(choice=BUNDLE.choice, tools=tools)
    arrival = asked(user_id)
    await Arrivals(turns.database).open(new_turn(arrival, bundle=bundle))
    held = await claimed(turns, arrival.turn_id)
    asked_for = [
        (f"{arrival.turn_id[:-2]}{position:02}", ToolCall(id=f"c{position}", function=FunctionCall(*call)))
        for position, call in enumerate(calls, 1)
    ]
    assert await turns.call_tools(held, reply(), answer(arrival.turn_id, ""), asked_for)
    return arrival.turn_id


async def one_call(turns: Turns, user_id: str, name: str, arguments: str = "{}") -> AskedCall:
    """A recorded call."""
    return (await turns.asked_calls(await calling(turns, user_id, (name, arguments)), 0))[0]
