"""What the scripted model says: an answer about the context it was given."""

import re

import msgspec

from ops.local.scripted.chat_request import ChatRequest
from ops.local.scripted.controls import without_marks
from ops.local.scripted.conversation import Conversation, text_of
from ops.local.scripted.schema_instance import instance_of

WELCOME = (
    "Hello! I am the scripted stand-in that answers while no real model is connected. To connect one, set "
    "OPENAI_API_KEY, or set OPENAI_BASE_URL for Ollama, LM Studio or vLLM, and start again."
)
_MEMORY = re.compile(
    r"\b(remember|remind|recall|did i (just )?(say|tell|ask)|i (said|told)|said before|earlier|my name"
    r"|know about me)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s")
_QUOTED = 200
_MOST_QUOTES = 5


def answer(request: ChatRequest, conversation: Conversation, choice: int) -> str:
    """The whole reply as text: JSON where a format was asked for, the tools' results where there are some."""
    form = request.response_format
    if form is not None and form.type != "text":
        return _structured(form.json_schema.schema if form.json_schema else None, choice)
    said = [f"(Choice {choice + 1}.)"] if choice else []
    if conversation.results:
        said += [f"The {name} says: {_quoted(text)}" for name, text in conversation.results]
    else:
        said += _about_context(request, conversation)
    return " ".join(said)


def last_sentence(text: str) -> str:
    """The last sentence of `text`, finished or not."""
    return _SENTENCE_END.split(text.rstrip())[-1]


def _structured(schema: dict[str, object] | None, choice: int) -> str:
    word = f"scripted {choice + 1}" if choice else "scripted"
    value = {"reply": word} if schema is None else instance_of(schema, word=word)
    return msgspec.json.encode(value).decode()


def _about_context(request: ChatRequest, conversation: Conversation) -> list[str]:
    first = all(message.role != "assistant" for message in conversation.messages)
    said = [WELCOME] if first else []
    if conversation.notes:
        wish = _SENTENCE_END.split(" ".join(conversation.notes[0].split()))[0]
        said.append(f"I was asked to be: {_quoted(wish)}")
        said += [f"I was also given: {_quoted(note)}" for note in conversation.notes[1 : _MOST_QUOTES + 1]]
    if first and request.tools:
        said.append("I can call: " + ", ".join(tool.function.name for tool in request.tools) + ".")
    if conversation.earlier:
        said.append(f"Before this I saw {_count(len(conversation.earlier), 'message')}.")
    if conversation.images:
        said.append(f"I see {_count(conversation.images, 'image')}.")
    said.append(_reaction(conversation))
    return said


def _reaction(conversation: Conversation) -> str:
    if not _MEMORY.search(conversation.question):
        return f"You said: {_quoted(conversation.question)}"
    told = [without_marks(text_of(message)) for message in conversation.earlier if message.role == "user"]
    if not told:
        return "You have not said anything to me before this."
    return "Before this you said: " + "; ".join(_quoted(text) for text in told[-_MOST_QUOTES:])


def _quoted(text: str) -> str:
    plain = " ".join(text.split())
    return f'"{plain if len(plain) <= _QUOTED else plain[:_QUOTED] + "…"}"'


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("s" if number != 1 else "")
