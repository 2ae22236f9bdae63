"""The body that is posted."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.openai import (
    AssistantMessage,
    DeveloperMessage,
    FunctionCall,
    FunctionSpec,
    ImagePart,
    ImageUrl,
    Message,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from workers.engines.ai import request
from workers.engines.ai.port import ModelCall


def posted(call: ModelCall, *, openai_itself: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(request.body(call, openai_itself=openai_itself))
    return body


def test_what_was_not_said_is_not_sent() -> None:
    assert posted(ModelCall(model="m", messages=[UserMessage("hi")])) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_parameter_arrives_under_openais_name() -> None:
    said: dict[str, Any] = {
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["a", "b"],
        "seed": 0,
        "n": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
        "logit_bias": {"5": 1.0},
        "logprobs": False,
        "top_logprobs": 2,
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
    }
    tools = [Tool(FunctionSpec(name="f", parameters={"type": "object"}))]
    body = posted(ModelCall(model="m", messages=[UserMessage("hi")], tools=tools, **said))
    assert said.items() <= body.items()
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    unspoken = {"model", "messages", "tools", "max_output_tokens", "prefix", "headers"}
    assert set(ModelCall.__struct_fields__) - unspoken == set(said)


def test_the_token_limit_has_the_name_its_server_knows() -> None:
    call = ModelCall(model="m", messages=[UserMessage("hi")], max_output_tokens=7)
    assert posted(call)["max_tokens"] == 7
    assert "max_completion_tokens" not in posted(call)
    assert posted(call, openai_itself=True)["max_completion_tokens"] == 7
    assert "max_tokens" not in posted(call, openai_itself=True)


def test_only_openai_itself_is_sent_developer_messages() -> None:
    call = ModelCall(model="m", messages=[DeveloperMessage("be kind"), UserMessage("hi")])
    assert posted(call)["messages"][0] == {"role": "system", "content": "be kind"}
    assert posted(call, openai_itself=True)["messages"][0] == {"role": "developer", "content": "be kind"}


def test_a_prefix_is_the_last_message_and_to_be_continued() -> None:
    body = posted(ModelCall(model="m", messages=[UserMessage("hi")], prefix="Well, "))
    assert body["messages"][-1] == {"role": "assistant", "content": "Well, "}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_mistral_and_deepseek_are_told_of_a_prefix_in_their_own_word() -> None:
    call = ModelCall(model="m", messages=[UserMessage("hi")], prefix="Well, ")
    body = msgspec.json.decode(request.body(call, openai_itself=False, marks_prefix=True))
    assert body["messages"][-1] == {"role": "assistant", "content": "Well, ", "prefix": True}
    assert "continue_final_message" not in body


def test_an_empty_prefix_is_none() -> None:
    assert len(posted(ModelCall(model="m", messages=[UserMessage("hi")], prefix=""))["messages"]) == 1


def test_tool_rounds_and_images_keep_openais_shape() -> None:
    messages: list[Message] = [
        UserMessage([TextPart("look"), ImagePart(ImageUrl("data:image/png;base64,x"))]),
        AssistantMessage(tool_calls=[ToolCall("c1", FunctionCall("f", "{}"))]),
        ToolMessage(content="42", tool_call_id="c1"),
    ]
    assert posted(ModelCall(model="m", messages=messages))["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
