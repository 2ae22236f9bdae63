"""Pure: what of a request is new, who answers it with which model, and the bundle the reply is generated from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile

import msgspec

from ops.runtime.models import ModelCatalogue
from ops.runtime.personalities import PersonalitySet
from schemas.context import ContextBundle, ModelChoice, Sampling
from schemas.faults import InvalidValue, ModelNotFound
from schemas.openai import (
    CHARACTERS_PER_TOKEN,
    AssistantMessage,
    ChatRequest,
    DeveloperMessage,
    ImagePart,
    Message,
    Part,
    SystemMessage,
    TextPart,
    Tool,
    ToolMessage,
    UserMessage,
    text_of,
)
from schemas.personalities import Personality

PERSONALITY_PREFIX = "cozy/"
TOKENS_OF_AN_IMAGE = 1_000
"""About what model servers count for one, whatever its bytes."""
NOTHING_NEW = "The request brings no new user message or tool result."


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """What a request brings. `instructions` apply to this turn only, `new` is stored, `ignored` we have already."""

    instructions: tuple[Message, ...]
    new: tuple[Message, ...]
    ignored: int


class Answerer(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers: a personality, or None for a raw model passed through."""

    personality: Personality | None
    choice: ModelChoice


def incoming(request: ChatRequest) -> Incoming:
    """Split a request at its last assistant message: what follows is new."""
    last = max((i for i, said in enumerate(request.messages) if isinstance(said, AssistantMessage)), default=-1)
    instructions = tuple(m for m in request.messages if isinstance(m, SystemMessage | DeveloperMessage))
    new = tuple(m for m in request.messages[last + 1 :] if isinstance(m, UserMessage | ToolMessage))
    return Incoming(instructions=instructions, new=new, ignored=len(request.messages) - len(instructions) - len(new))


def answerer(
    request: ChatRequest, personalities: PersonalitySet, models: ModelCatalogue, session_personality: str | None = None
) -> Answerer:
    """Who answers. A session's personality applies in it; a raw model named with it replaces the model only.

    Raises ModelNotFound for a model that is not on the allow-list, InvalidValue for an unknown personality.
    """
    named = request.model.removeprefix(PERSONALITY_PREFIX) if request.model.startswith(PERSONALITY_PREFIX) else None
    asked = request.cozy.personality_id if request.cozy else None
    id = session_personality or asked or named
    personality = None if id is None else personalities.get(id)
    if id is not None and personality is None:
        if id == asked:
            raise InvalidValue("There is no such personality.", param="cozy.personality_id")
        raise ModelNotFound(param="model")
    wanted = request.model if named is None else personality.model.name if personality else "default"
    choice = models.resolve(wanted)
    if choice is None:
        raise ModelNotFound(param="model")
    return Answerer(personality=personality, choice=choice)


def matched(messages: Sequence[Message]) -> list[Message]:
    """The messages with every tool call answered and every answer called for, as model servers demand.

    A call that was never answered leaves the message without its calls (or no message, if it said nothing); an answer
    nobody asked for is left out.
    """
    asked: set[str] = set()
    whole: list[Message] = []
    for position, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            asked = {call.id for call in message.tool_calls or ()}
            if asked <= _answered_behind(messages, position):
                whole.append(message)
                continue
            asked = set()
            if text_of(message.content):
                whole.append(AssistantMessage(content=message.content))
        elif not isinstance(message, ToolMessage):
            whole.append(message)
        elif message.tool_call_id in asked:
            asked.remove(message.tool_call_id)
            whole.append(message)
    return whole


def _answered_behind(messages: Sequence[Message], position: int) -> set[str]:
    """The calls answered before the assistant speaks again. Beyond, an id is no guide: servers use it once more."""
    behind = takewhile(lambda message: not isinstance(message, AssistantMessage), islice(messages, position + 1, None))
    return {message.tool_call_id for message in behind if isinstance(message, ToolMessage)}


def size_of(message: Message) -> int:
    """The estimated size of a message in characters: its words, its calls, and what its other parts cost."""
    size = 0
    if isinstance(message, AssistantMessage):
        size += sum(len(call.function.name) + len(call.function.arguments) for call in message.tool_calls or ())
    if not isinstance(message.content, list):
        return size + len(message.content or "")
    return size + sum(map(_size_of_part, message.content))


def _size_of_part(part: Part) -> int:
    if isinstance(part, TextPart):
        return len(part.text)
    if isinstance(part, ImagePart):
        return TOKENS_OF_AN_IMAGE * CHARACTERS_PER_TOKEN
    return len(msgspec.json.encode(part))


def fit(messages: Sequence[Message], tokens: int) -> list[Message]:
    """The newest messages whose estimated size fits `tokens`, from a user's message on."""
    room = tokens * CHARACTERS_PER_TOKEN
    start = len(messages)
    while start > 0 and (room := room - size_of(messages[start - 1])) >= 0:
        start -= 1
    while start < len(messages) and not isinstance(messages[start], UserMessage):
        start += 1
    return list(messages[start:])


def bundle_of(
    request: ChatRequest,
    who: Answerer,
    *,
    in_session: bool,
    history: Sequence[Message] = (),
    history_tokens: int = 24_000,
    tools: Sequence[Tool] = (),
) -> ContextBundle:
    """Everything the reply is generated from. Without a session the request's own messages are the whole history."""
    personality = who.personality
    if in_session:
        brought = incoming(request)
        kept = matched([*fit(history, history_tokens), *brought.new])
        if not any(isinstance(message, UserMessage | ToolMessage) for message in kept[-1:]):
            raise InvalidValue(NOTHING_NEW, param="messages")
        said, before = [*brought.instructions, *kept], ()
    else:
        said, before = list(request.messages), ()
    own = {tool.function.name for tool in request.tools or ()}
    return ContextBundle(
        choice=who.choice,
        sampling=_sampling(personality),
        system=(personality.prompt,) if personality else (),
        history=before,
        incoming=tuple(said),
        tools=tuple(tool for tool in tools if tool.function.name not in own) if (request.n or 1) == 1 else (),
        personality_id=personality.id if personality else None,
        personality_version=personality.version if personality else None,
        passthrough=personality is None,
    )


def _sampling(personality: Personality | None) -> Sampling:
    if personality is None:
        return Sampling()
    model = personality.model
    return Sampling(temperature=model.temperature, top_p=model.top_p, max_output_tokens=model.max_output_tokens)
