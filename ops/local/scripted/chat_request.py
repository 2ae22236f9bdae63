"""A chat request as it arrives: its shape, and the checks that OpenAI's own server makes."""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from ops.local.scripted.problems import Problem

Body = TypeVar("Body")
Positive = Annotated[int, Meta(ge=1)]
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATH = re.compile(r"`(?:key in )?\$\.?([^`]*)`")


class Part(Struct):
    type: str
    text: str | None = None
    image_url: Any = None


class FunctionCall(Struct):
    name: str
    arguments: str


class ToolCall(Struct):
    id: str
    function: FunctionCall


class Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None


class Function(Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Struct):
    function: Function
    type: Literal["function"] = "function"


class NamedFunction(Struct):
    name: str


class NamedTool(Struct):
    function: NamedFunction


class StreamOptions(Struct):
    include_usage: bool | None = None


class JsonSchema(Struct):
    name: str
    schema: dict[str, Any] | None = None


class ResponseFormat(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(Struct):
    """What was asked. Unknown keys are ignored."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model: str = "scripted"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Meta(min_length=1)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens the reply may have."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> list[str]:
        """The strings before which the reply ends."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in given if stop]

    @property
    def choices(self) -> int:
        """How many replies are wanted."""
        return self.n or 1


def decode(body: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """`body` as its struct. Problem (400) names the field at fault."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        path = _PATH.search(str(error))
        missing = re.search(r"missing required field `(\w+)`", str(error))
        names = [name for name in (path and path.group(1), missing and missing.group(1)) if name]
        raise Problem(400, f"Invalid request: {error}", param=".".join(names) or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "We could not parse the JSON body of your request.") from error


def chat_request(body: bytes) -> ChatRequest:
    """The request in `body`, checked. Problem (400) names the field at fault."""
    request = decode(body, _DECODER)
    _check_format(request.response_format)
    _check_tools(request)
    _check_messages(request.messages)
    _check_continuation(request)
    return request


def _check_format(form: ResponseFormat | None) -> None:
    if form is not None and form.type == "json_schema" and form.json_schema is None:
        raise Problem(400, "A response format json_schema needs its schema.", param="response_format.json_schema")


def _check_tools(request: ChatRequest) -> None:
    names = [tool.function.name for tool in request.tools or ()]
    for place, name in enumerate(names):
        if not _TOOL_NAME.fullmatch(name):
            raise Problem(
                400,
                "Invalid tool name: letters, digits, _ and -, at most 64.",
                param=f"tools[{place}].function.name",
            )
    for field in ("tool_choice", "parallel_tool_calls"):
        if not names and getattr(request, field) is not None:
            raise Problem(400, f"'{field}' is only allowed when 'tools' are specified.", param=field)
    if isinstance(request.tool_choice, NamedTool) and request.tool_choice.function.name not in names:
        raise Problem(400, "Tool choice names a function that 'tools' does not have.", param="tool_choice")


def _check_messages(messages: list[Message]) -> None:
    """Content where the role wants it, and every tool call followed by its result, no result without a call."""
    open_calls: set[str] = set()
    for place, message in enumerate(messages):
        if message.content is None and not (message.role == "assistant" and message.tool_calls):
            raise Problem(400, "Expected a string, got null.", param=f"messages[{place}].content")
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise Problem(
                    400,
                    "Messages with role 'tool' must answer a preceding message with 'tool_calls'.",
                    param=f"messages[{place}].role",
                )
            open_calls.discard(message.tool_call_id or "")
            continue
        _check_answered(open_calls, place)
        open_calls = {call.id for call in message.tool_calls or ()}
    _check_answered(open_calls, len(messages))


def _check_answered(open_calls: set[str], place: int) -> None:
    if open_calls:
        raise Problem(
            400,
            "An assistant message with 'tool_calls' must be followed by tool messages answering each of them.",
            param=f"messages[{place - 1}].role",
        )


def _check_continuation(request: ChatRequest) -> None:
    if not request.continue_final_message:
        return
    if request.add_generation_prompt is not False:
        raise Problem(
            400,
            "Cannot set both 'continue_final_message' and 'add_generation_prompt'.",
            param="continue_final_message",
        )
    if request.messages[-1].role != "assistant":
        raise Problem(400, "The final message is not the assistant's.", param="continue_final_message")


_DECODER = msgspec.json.Decoder(ChatRequest)
