"""OpenAI's chat request: what is taken, what is refused and where, and what survives the bus."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas import codec
from schemas.openai import (
    AssistantMessage,
    ChatRequest,
    ImagePart,
    ImageUrl,
    TextPart,
    Usage,
    UserMessage,
    text_of,
)

HI: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
EVERYTHING: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "house"},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_id": "f1"}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "A cat."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "refusal": "No."},
        {"role": "user", "content": "Go on."},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 10,
    "max_completion_tokens": 20,
    "stop": ["a", "b"],
    "seed": -7,
    "n": 2,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "tools": [
        {
            "type": "function",
            "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}, "strict": True},
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "presence_penalty": -1.0,
    "frequency_penalty": 1.0,
    "logit_bias": {"50256": -100.0},
    "logprobs": True,
    "top_logprobs": 5,
    "user": "u1",
    "metadata": {"k": "v"},
    "store": False,
    "cozy": {"personality_id": "tutor", "session_id": "s", "allowed_tools": [], "on_busy": "reject"},
}


def read(body: Any) -> ChatRequest:
    return msgspec.json.decode(msgspec.json.encode(body), type=ChatRequest)


def complaint(body: Any) -> str:
    with pytest.raises(msgspec.ValidationError) as raised:
        read(body)
    return str(raised.value)


def with_message(**message: Any) -> dict[str, Any]:
    return HI | {"messages": [message]}


def test_a_request_with_everything_is_taken_and_nothing_of_it_is_lost() -> None:
    assert msgspec.to_builtins(read(EVERYTHING)) == EVERYTHING


def test_a_request_with_everything_survives_the_bus() -> None:
    request = read(EVERYTHING)
    assert codec.decode(codec.encode(request), ChatRequest) == request


def test_every_parameter_we_know_is_tried_here() -> None:
    assert set(EVERYTHING) == {field.name for field in msgspec.structs.fields(ChatRequest)}


def test_keys_we_do_not_know_are_ignored() -> None:
    assert read(HI | {"web_search_options": {}, "modalities": ["text"]}) == read(HI)


@pytest.mark.parametrize("key", sorted(set(EVERYTHING) - {"model", "messages"}))
def test_every_parameter_may_be_null(key: str) -> None:
    assert getattr(read(HI | {key: None}), key) is None


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"model": 1}, "$.model"),
        ({"model": ""}, "$.model"),
        ({"model": "m" * 257}, "$.model"),
        ({"messages": []}, "$.messages"),
        ({"messages": "hi"}, "$.messages"),
        ({"stream": "yes"}, "$.stream"),
        ({"stream_options": {"include_usage": 1}}, "$.stream_options.include_usage"),
        ({"temperature": 2.1}, "$.temperature"),
        ({"temperature": "hot"}, "$.temperature"),
        ({"top_p": -0.1}, "$.top_p"),
        ({"max_tokens": 0}, "$.max_tokens"),
        ({"max_completion_tokens": 1.5}, "$.max_completion_tokens"),
        ({"stop": ["1", "2", "3", "4", "5"]}, "$.stop"),
        ({"stop": [1]}, "$.stop[0]"),
        ({"seed": "x"}, "$.seed"),
        ({"n": 0}, "$.n"),
        ({"n": 17}, "$.n"),
        ({"response_format": "json"}, "$.response_format"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "$.tools[0].function.name"),
        ({"tools": [{"type": "retrieval", "function": {"name": "a"}}]}, "$.tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}] * 129}, "$.tools"),
        ({"presence_penalty": 2.5}, "$.presence_penalty"),
        ({"frequency_penalty": -2.5}, "$.frequency_penalty"),
        ({"logit_bias": {"1": "much"}}, "$.logit_bias[...]"),
        ({"top_logprobs": 21}, "$.top_logprobs"),
        ({"cozy": {"on_busy": "panic"}}, "$.cozy.on_busy"),
        ({"cozy": {"allowed_tools": "clock"}}, "$.cozy.allowed_tools"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "$.messages[0].role"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": 3}]}, "$.messages[1].content"),
        ({"messages": [{"role": "user", "content": None}]}, "$.messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "$.messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}]},
            "$.messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": 1}}]}]},
            "$.messages[0].tool_calls[0].function.name",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(changes: dict[str, Any], path: str) -> None:
    assert complaint(HI | changes).endswith(f"`{path}`")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": HI["messages"]}, "model"),
        ({"model": "m"}, "messages"),
        (with_message(content="x"), "role"),
        (with_message(role="user"), "content"),
        (with_message(role="tool", content="x"), "tool_call_id"),
        (with_message(role="user", content=[{"type": "text"}]), "text"),
        (with_message(role="assistant", tool_calls=[{"id": "c"}]), "function"),
    ],
)
def test_what_is_missing_is_named(body: dict[str, Any], field: str) -> None:
    assert f"missing required field `{field}`" in complaint(body)


def test_the_newer_name_of_the_token_limit_wins() -> None:
    assert read(EVERYTHING).max_output_tokens == 20
    assert read(HI | {"max_tokens": 5}).max_output_tokens == 5
    assert read(HI).max_output_tokens is None


def test_the_words_of_a_content_are_its_text_parts() -> None:
    picture = ImagePart(image_url=ImageUrl(url="u"))
    assert text_of([TextPart(text="a"), picture, TextPart(text="b")]) == "a\nb"
    assert (text_of("plain"), text_of(None), text_of([])) == ("plain", "", "")


def test_what_is_not_text_has_no_words() -> None:
    request = read(EVERYTHING)
    asked = request.messages[2]
    assert isinstance(asked, UserMessage)
    assert text_of(asked.content) == "What is this?"
    refused = request.messages[5]
    assert isinstance(refused, AssistantMessage)
    assert text_of(refused.content) == ""


def test_usage_adds_up_and_keeps_the_last_details() -> None:
    one = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3, prompt_tokens_details={"cached_tokens": 1})
    two = Usage(prompt_tokens=10, completion_tokens=20, total_tokens=30, completion_tokens_details={"x": 2})
    assert one.plus(two) == Usage(
        prompt_tokens=11,
        completion_tokens=22,
        total_tokens=33,
        prompt_tokens_details={"cached_tokens": 1},
        completion_tokens_details={"x": 2},
    )
