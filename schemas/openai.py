"""OpenAI's chat request, as we accept it: unknown keys are ignored, known ones are checked and their path is named."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

# A content part of a kind we do not check is passed on as it came, so that a newer kind needs no change here.
Text = Annotated[str, Meta(max_length=4_000_000)]


CHARACTERS_PER_TOKEN = 4
"""By rule of thumb, where nobody counted."""


class TextPart(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    text: Text


class ImageUrl(msgspec.Struct, frozen=True, omit_defaults=True):
    url: str
    detail: str | UnsetType = UNSET


class ImagePart(msgspec.Struct, frozen=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class InputAudio(msgspec.Struct, frozen=True):
    data: str
    format: str


class AudioPart(msgspec.Struct, frozen=True, tag_field="type", tag="input_audio"):
    input_audio: InputAudio


class FilePart(msgspec.Struct, frozen=True, tag_field="type", tag="file"):
    file: dict[str, Any]


class RefusalPart(msgspec.Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


Part = TextPart | ImagePart | AudioPart | FilePart | RefusalPart
Content = Text | list[Part]


class FunctionCall(msgspec.Struct, frozen=True):
    """What the model wants called: `arguments` is JSON as text, exactly as the model wrote it."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct, frozen=True):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class SystemMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="role", tag="system"):
    content: Content
    name: str | UnsetType = UNSET


class DeveloperMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="role", tag="developer"):
    content: Content
    name: str | UnsetType = UNSET


class UserMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="role", tag="user"):
    content: Content
    name: str | UnsetType = UNSET


class AssistantMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="role", tag="assistant"):
    content: Content | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: str | None = None
    name: str | UnsetType = UNSET


class ToolMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="role", tag="tool"):
    content: Content
    tool_call_id: str


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class FunctionSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    strict: bool | UnsetType | None = UNSET


class Tool(msgspec.Struct, frozen=True):
    function: FunctionSpec
    type: Literal["function"] = "function"


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class CozyOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Our extension of the request; OpenAI's SDKs send it through `extra_body`."""

    personality_id: str | None = None
    session_id: str | None = None
    use_personalization: bool | None = None
    allowed_tools: list[str] | None = None
    on_busy: Literal["queue", "reject", "interrupt"] | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    parent_message_id: str | None = None


Penalty = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=1)]


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`POST /v1/chat/completions`. What a model does not take is its provider's to refuse."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    cozy: CozyOptions | None = None

    @property
    def max_output_tokens(self) -> int | None:
        """The limit on the reply's tokens; `max_completion_tokens` wins."""
        return self.max_completion_tokens or self.max_tokens


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one reply. Details (cached, reasoning) are the provider's, passed on as they came."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None

    def plus(self, other: Usage) -> Usage:
        """The sum over the rounds of one turn; details are the last round's."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            prompt_tokens_details=other.prompt_tokens_details or self.prompt_tokens_details,
            completion_tokens_details=other.completion_tokens_details or self.completion_tokens_details,
        )


def text_of(content: Content | None) -> str:
    """The words of a content: its text parts joined, images and files left out."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))
