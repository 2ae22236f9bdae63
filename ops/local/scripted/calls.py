"""Which tools the scripted model calls, and with what."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ops.local.scripted import controls
from ops.local.scripted.chat_request import ChatRequest, Function, NamedTool
from ops.local.scripted.conversation import Conversation
from ops.local.scripted.schema_instance import instance_of

_ASKED = re.compile(r"\bcall\s+([A-Za-z0-9_-]{1,64})\s*")
_CLOCK = re.compile(r"(^|[_-])(clock|time|date)", re.IGNORECASE)
_CLOCK_WISH = re.compile(r"\b(time|date|clock|o'clock|day is it)\b", re.IGNORECASE)
_ZONE_PROPERTY = re.compile(r"zone|^tz$", re.IGNORECASE)
_ZONE = re.compile(r"\b([A-Z][a-z]+/[A-Z][A-Za-z_]+|UTC|GMT)\b")
_CITIES = {
    "amsterdam": "Europe/Amsterdam",
    "berlin": "Europe/Berlin",
    "london": "Europe/London",
    "los angeles": "America/Los_Angeles",
    "new york": "America/New_York",
    "paris": "Europe/Paris",
    "shanghai": "Asia/Shanghai",
    "singapore": "Asia/Singapore",
    "sydney": "Australia/Sydney",
    "tokyo": "Asia/Tokyo",
}


class Call(msgspec.Struct, frozen=True):
    """A tool and its arguments as JSON text, which may be broken if a control asked for that."""

    name: str
    arguments: str


def wanted_calls(request: ChatRequest, conversation: Conversation, forced: str) -> list[Call]:
    """The calls that this reply consists of; none if it is text. `forced` is the `call` control."""
    tools = {tool.function.name: tool.function for tool in request.tools or ()}
    if not tools or request.tool_choice == "none":
        return []
    if isinstance(request.tool_choice, NamedTool):
        return [_made(tools[request.tool_choice.function.name])]
    found: list[Call] = []
    if not conversation.results:
        found = (
            list(_forced(tools, forced))
            or list(_asked(tools, conversation.question))
            or list(_clock(tools, conversation.question))
        )
    if not found and request.tool_choice == "required":
        found = [_made(next(iter(tools.values())))]
    return found[:1] if request.parallel_tool_calls is False else found


def _forced(tools: Mapping[str, Function], forced: str) -> Iterable[Call]:
    for name, arguments in controls.parts(forced):
        if name in tools:
            yield Call(name, arguments) if arguments else _made(tools[name])


def _asked(tools: Mapping[str, Function], question: str) -> Iterable[Call]:
    """The calls written out in the question: "call NAME {json}"."""
    decoder = json.JSONDecoder()
    for match in _ASKED.finditer(question):
        if match.group(1) not in tools:
            continue
        try:
            arguments, _ = decoder.raw_decode(question, match.end())
        except ValueError:
            arguments = None
        if isinstance(arguments, dict):
            yield Call(match.group(1), _json(arguments))
        else:
            yield _made(tools[match.group(1)])


def _clock(tools: Mapping[str, Function], question: str) -> Iterable[Call]:
    if not _CLOCK_WISH.search(question):
        return
    for tool in tools.values():
        if _CLOCK.search(tool.name):
            properties = (tool.parameters or {}).get("properties", {})
            zone = _zone_in(question)
            place = next((name for name in properties if _ZONE_PROPERTY.search(name)), None)
            given = {place: zone} if place and zone else {}
            yield _made(tool, given)
            return


def _zone_in(question: str) -> str | None:
    """The time zone that the question names, itself or by a city."""
    if named := _ZONE.search(question):
        return named.group(1)
    lower = question.lower()
    return next((zone for city, zone in _CITIES.items() if city in lower), None)


def _made(tool: Function, given: Mapping[str, Any] | None = None) -> Call:
    """A call with what the tool's schema requires, and what is given."""
    required = instance_of({"type": "object", **(tool.parameters or {})}, sparse=True)
    return Call(tool.name, _json({**required, **(given or {})} if isinstance(required, dict) else given or {}))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
