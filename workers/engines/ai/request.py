"""A call as the JSON body of `POST /chat/completions`, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.openai import AssistantMessage, DeveloperMessage, Message, StreamOptions, SystemMessage, Tool
from workers.engines.ai.port import ModelCall


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    model: str
    messages: Sequence[Message]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    response_format: dict[str, Any] | None = None
    tools: Sequence[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


class _Begun(AssistantMessage, frozen=True, omit_defaults=True, tag_field="role", tag="assistant"):
    """A message that the answer goes on from, in Mistral's and DeepSeek's word for it."""

    prefix: bool = False


_SAME = tuple(name for name in ModelCall.__struct_fields__ if name in _Body.__struct_fields__ and name != "messages")
_encoder = msgspec.json.Encoder()


def body(call: ModelCall, *, openai_itself: bool, marks_prefix: bool = False) -> bytes:
    """The bytes to post for a streamed answer that ends with its usage.

    OpenAI's newer models refuse `max_tokens`, and other servers know neither `max_completion_tokens` nor the role
    `developer`: `openai_itself` decides which words are used. `marks_prefix` is for servers that refuse vLLM's words
    for a begun answer, and want its message marked.
    """
    same: dict[str, Any] = {name: getattr(call, name) for name in _SAME}
    same["max_completion_tokens" if openai_itself else "max_tokens"] = call.max_output_tokens
    messages = call.messages if openai_itself else _without_developers(call.messages)
    if call.prefix and marks_prefix:
        messages = (*messages, _Begun(content=call.prefix, prefix=True))
    elif call.prefix:
        # vLLM's words for it; llama.cpp takes the trailing assistant message alone and ignores them.
        messages = (*messages, AssistantMessage(content=call.prefix))
        same |= {"continue_final_message": True, "add_generation_prompt": False}
    return _encoder.encode(_Body(messages=messages, stream=True, stream_options=StreamOptions(True), **same))


def _without_developers(messages: Sequence[Message]) -> Sequence[Message]:
    if not any(type(message) is DeveloperMessage for message in messages):
        return messages
    return [
        SystemMessage(content=message.content, name=message.name) if isinstance(message, DeveloperMessage) else message
        for message in messages
    ]
