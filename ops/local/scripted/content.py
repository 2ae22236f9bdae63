"""The plan of a reply: what each choice says, token by token, before any of it is bytes. Pure."""

from collections.abc import Sequence

import msgspec

from ops.local.scripted import answers, tokens
from ops.local.scripted.calls import Call, wanted_calls
from ops.local.scripted.chat_request import ChatRequest
from ops.local.scripted.controls import Controls, Seam
from ops.local.scripted.conversation import Conversation, text_of

PREAMBLE = "Sure, continuing: "


class PlannedCall(msgspec.Struct, frozen=True):
    """A tool call; its head counts as one token, each fragment as one more."""

    id: str
    name: str
    fragments: Sequence[str]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What one choice of a reply says, in the order it says it."""

    reasoning: Sequence[str] = ()
    content: Sequence[str] = ()
    calls: Sequence[PlannedCall] = ()
    finish: str = "stop"

    @property
    def count(self) -> int:
        """How many tokens this is."""
        return len(self.reasoning) + len(self.content) + sum(1 + len(call.fragments) for call in self.calls)


class Reply(msgspec.Struct, frozen=True):
    """All choices, and what the prompt counts as."""

    choices: Sequence[Choice]
    prompt_tokens: int

    @property
    def count(self) -> int:
        """How many tokens all choices are."""
        return sum(choice.count for choice in self.choices)

    @property
    def reasoning_count(self) -> int:
        """How many of them are reasoning."""
        return sum(len(choice.reasoning) for choice in self.choices)


def plan(request: ChatRequest, conversation: Conversation, controls: Controls) -> Reply:
    """The reply to `request`: a function of its messages and parameters, and of the controls."""
    prompt = sum(tokens.count_words(text_of(message)) for message in request.messages)
    choices = [_choice(request, conversation, controls, index) for index in range(request.choices)]
    return Reply(choices, max(1, prompt))


def _choice(request: ChatRequest, conversation: Conversation, controls: Controls, index: int) -> Choice:
    reasoning = tokens.filler(conversation.seed(f"reasoning {index}"), controls.reasoning)
    # A reply that has already said something is going on as text.
    calls = [] if conversation.prefix else wanted_calls(request, conversation, controls.call)
    if calls:
        planned = [_planned(call, conversation, f"{index} {place}") for place, call in enumerate(calls)]
        return _limited(Choice(reasoning=reasoning, calls=planned, finish="tool_calls"), request.limit)
    content = _content(request, conversation, controls, index)
    return _limited(Choice(reasoning=reasoning, content=_stopped(content, request.stops)), request.limit)


def _planned(call: Call, conversation: Conversation, purpose: str) -> PlannedCall:
    identity = f"call_{conversation.seed('call ' + purpose):08x}{conversation.seed('id ' + purpose):08x}"
    return PlannedCall(identity, call.name, tokens.pieces(call.arguments))


def _content(request: ChatRequest, conversation: Conversation, controls: Controls, index: int) -> Sequence[str]:
    if controls.tokens is not None:
        whole = tokens.filler(conversation.seed(f"filler {index}"), controls.tokens)
    else:
        whole = tokens.pieces(answers.answer(request, conversation, index))
    if not conversation.prefix and not conversation.continued:
        return whole
    rest = _rest(whole, conversation.prefix)
    return _with_seam(rest, conversation.prefix, controls.seam) if conversation.continued else rest


def _rest(whole: Sequence[str], prefix: str) -> Sequence[str]:
    """What follows `prefix`, in the same tokens as the whole; the first may be the end of a broken one."""
    if not "".join(whole).startswith(prefix):
        return whole[len(tokens.pieces(prefix)) :]
    length = 0
    for place, piece in enumerate(whole):
        if length + len(piece) > len(prefix):
            return [piece[len(prefix) - length :], *whole[place + 1 :]]
        length += len(piece)
    return []


def _with_seam(rest: Sequence[str], prefix: str, seam: Seam) -> Sequence[str]:
    """The rest as a model begins it that was only asked to go on."""
    match seam:
        case "preamble":
            return [*tokens.pieces(PREAMBLE), *rest]
        case "repeat":
            return [*tokens.pieces(answers.last_sentence(prefix)), *rest]
        case "reword":
            return [*tokens.pieces(prefix.split()[-1] if prefix.split() else ""), *rest]
        case "midword":
            return [piece.lstrip() for piece in rest[:1]] + list(rest[1:])
        case "none":
            return rest


def _stopped(content: Sequence[str], stops: Sequence[str]) -> Sequence[str]:
    """The content before the first stop string, which may lie across tokens."""
    if not stops:
        return content
    text = "".join(content)
    ends = [end for end in (text.find(stop) for stop in stops) if end >= 0]
    if not ends:
        return content
    kept: list[str] = []
    length = 0
    for piece in content:
        kept.append(piece[: min(ends) - length])
        length += len(piece)
        if length >= min(ends):
            break
    return [piece for piece in kept if piece]


def _limited(choice: Choice, limit: int | None) -> Choice:
    """At most `limit` tokens of the choice, reasoning counted; finish_reason is length where that cuts it."""
    if limit is None or choice.count <= limit:
        return choice
    reasoning = choice.reasoning[:limit]
    content = choice.content[: limit - len(reasoning)]
    left = limit - len(reasoning) - len(content)
    calls = []
    for call in choice.calls:
        if left <= 0:
            break
        calls.append(PlannedCall(call.id, call.name, call.fragments[: left - 1]))
        left -= 1 + len(calls[-1].fragments)
    return Choice(reasoning=reasoning, content=content, calls=calls, finish="length")
