"""Which tools are called, and with what."""

from typing import Any

import msgspec
import pytest

from ops.local.scripted.calls import Call, wanted_calls
from ops.local.scripted.chat_request import chat_request
from ops.local.scripted.conversation import Conversation


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **parameters}}}


CLOCK = tool("clock", properties={"timezone": {"type": "string"}})
SEARCH = tool("search", properties={"query": {"type": "string"}, "limit": {"type": "integer"}}, required=["query"])


def calls(question: str, *, forced: str = "", after: list[dict[str, Any]] | None = None, **more: Any) -> list[Call]:
    body = {"messages": [{"role": "user", "content": question}, *(after or [])], "tools": [CLOCK, SEARCH], **more}
    request = chat_request(msgspec.json.encode(body))
    return wanted_calls(request, Conversation(request), forced)


RESULT: list[dict[str, Any]] = [
    {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "noon"},
]


@pytest.mark.parametrize(
    ("question", "arguments"),
    [
        ("What time is it?", "{}"),
        ("what's the date in New York", '{"timezone":"America/New_York"}'),
        ("Time in Africa/Cairo please", '{"timezone":"Africa/Cairo"}'),
    ],
)
def test_a_clock_is_called_for_the_time_where_it_is_asked_for(question: str, arguments: str) -> None:
    assert calls(question) == [Call("clock", arguments)]


@pytest.mark.parametrize("question", ["Hello", "Sometimes it rains", "call me maybe"])
def test_other_questions_call_nothing(question: str) -> None:
    assert calls(question) == []


def test_a_call_written_out_is_made() -> None:
    assert calls('Please call search {"query": "sea", "limit": 2} now') == [Call("search", '{"query":"sea","limit":2}')]


def test_a_call_without_arguments_gets_what_the_schema_requires() -> None:
    assert calls("call search") == [Call("search", '{"query":"scripted query"}')]


def test_two_calls_written_out_are_made_side_by_side_unless_that_is_forbidden() -> None:
    question = 'call clock {} and call search {"query": "x"}'
    assert [call.name for call in calls(question)] == ["clock", "search"]
    assert [call.name for call in calls(question, parallel_tool_calls=False)] == ["clock"]


def test_a_forced_call_keeps_even_broken_arguments() -> None:
    assert calls("hi", forced="clock {oops;;unknown {}") == [Call("clock", "{oops")]


def test_a_result_ends_the_calling() -> None:
    assert calls("What time is it?", forced="clock", after=RESULT) == []


def test_no_choice_of_tools_means_none() -> None:
    assert calls("What time is it?", tool_choice="none") == []


def test_a_required_call_is_made_in_every_round() -> None:
    assert calls("hi", tool_choice="required") == [Call("clock", "{}")]
    assert calls("hi", tool_choice="required", after=RESULT) == [Call("clock", "{}")]


def test_a_named_tool_is_called() -> None:
    choice = {"type": "function", "function": {"name": "search"}}
    assert [call.name for call in calls("what time is it", tool_choice=choice)] == ["search"]
