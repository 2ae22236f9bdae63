"""Requests that the real server would refuse are refused, naming the field."""

import time
from typing import Any

import msgspec
import pytest

from ops.local.scripted.chat_request import chat_request
from ops.local.scripted.problems import Problem

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "clock"}}
CALLING = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "clock", "arguments": "{}"}}]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "noon"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [USER, {"role": "ghost", "content": "x"}]}, "messages[1].role"),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens"),
        ({"messages": [USER], "n": 1.5}, "n"),
        ({"messages": [USER], "temperature": 3}, "temperature"),
        ({"messages": [USER], "stop": 5}, "stop"),
        ({"messages": [USER], "tools": []}, "tools"),
        ({"messages": [USER], "tools": [{"type": "function", "function": {"name": "a.b"}}]}, "tools[0].function.name"),
        ({"messages": [USER], "tool_choice": "auto"}, "tool_choice"),
        ({"messages": [USER], "tools": [TOOL], "tool_choice": {"function": {"name": "x"}}}, "tool_choice"),
        ({"messages": [USER], "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"messages": [USER, RESULT]}, "messages[1].role"),
        ({"messages": [USER, CALLING]}, "messages[1].role"),
        ({"messages": [USER, CALLING, USER]}, "messages[1].role"),
        ({"messages": [USER], "continue_final_message": True}, "continue_final_message"),
        (
            {"messages": [USER], "continue_final_message": True, "add_generation_prompt": False},
            "continue_final_message",
        ),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(Problem) as problem:
        chat_request(msgspec.json.encode(body))
    assert (problem.value.status, problem.value.param) == (400, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[1,2", b'{"messages": "\xff"}', b'{"a":' * 100_000])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as problem:
        chat_request(body)
    assert problem.value.status == 400


def test_unknown_keys_and_nulls_are_fine() -> None:
    body = {"messages": [USER, CALLING, RESULT], "stream": None, "stop": None, "metadata": {"a": 1}, "store": True}
    assert chat_request(msgspec.json.encode(body)).stops == []


def test_the_newer_name_of_the_most_tokens_wins() -> None:
    body = {"messages": [USER], "max_tokens": 9, "max_completion_tokens": 3}
    assert chat_request(msgspec.json.encode(body)).limit == 3


def test_a_history_of_ten_thousand_messages_is_read_quickly() -> None:
    body = msgspec.json.encode({"messages": [USER, {"role": "assistant", "content": "hello"}] * 5000 + [USER]})
    started = time.perf_counter()
    assert len(chat_request(body).messages) == 10_001
    assert time.perf_counter() - started < 1
