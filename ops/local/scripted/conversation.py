"""What the scripted model sees of a conversation, and which part of its own reply it is to go on from."""

import hashlib
from collections.abc import Sequence
from functools import cached_property

from ops.local.scripted.chat_request import ChatRequest, Message
from ops.local.scripted.controls import without_marks

_NOTES = ("system", "developer")


def text_of(message: Message) -> str:
    """All text of a message, marks included."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return "\n".join(part.text for part in message.content if part.text)


class Conversation:
    """The messages that a reply is a function of, and the part of that reply already said.

    `salt` is what makes the replies to the same messages differ, where they are to.
    """

    def __init__(self, request: ChatRequest) -> None:
        self.continued = False
        self.salt = ""
        self.prefix = ""
        self.messages: Sequence[Message] = request.messages
        last = request.messages[-1]
        if last.role == "assistant" and (request.continue_final_message or last.prefix):
            self.prefix, self.messages = text_of(last), request.messages[:-1]
        elif _asks_to_continue(request.messages):
            self.continued = True
            self.prefix, self.messages = text_of(request.messages[-2]), request.messages[:-2]

    @cached_property
    def notes(self) -> list[str]:
        """What the system and the developer said."""
        return [text_of(message) for message in self.messages if message.role in _NOTES]

    @cached_property
    def last_user(self) -> int:
        """Where the last user message is; -1 if there is none."""
        places = range(len(self.messages) - 1, -1, -1)
        return next((place for place in places if self.messages[place].role == "user"), -1)

    @cached_property
    def marked_question(self) -> str:
        """The last user message as it came, with the marks."""
        return text_of(self.messages[self.last_user]) if self.last_user >= 0 else ""

    @cached_property
    def question(self) -> str:
        """The last user message as it is meant to be read."""
        return without_marks(self.marked_question)

    @cached_property
    def earlier(self) -> list[Message]:
        """The history: all before the last user message but the notes."""
        return [message for message in self.messages[: max(self.last_user, 0)] if message.role not in _NOTES]

    @cached_property
    def results(self) -> list[tuple[str, str]]:
        """The (tool name, text) of each tool result since the last user message."""
        names = {call.id: call.function.name for message in self.messages for call in message.tool_calls or ()}
        return [
            (names.get(message.tool_call_id or "", "tool"), text_of(message))
            for message in self.messages[self.last_user + 1 :]
            if message.role in ("tool", "function")
        ]

    @cached_property
    def images(self) -> int:
        """How many images came with the last user message."""
        content = self.messages[self.last_user].content if self.last_user >= 0 else None
        return sum(part.type == "image_url" for part in content) if isinstance(content, list) else 0

    def seed(self, purpose: str) -> int:
        """A 32-bit number that is the same for the same messages, purpose and salt."""
        digest = self._digest.copy()
        digest.update(f"{purpose}{self.salt}".encode())
        return int.from_bytes(digest.digest())

    @cached_property
    def _digest(self) -> "hashlib.blake2b":
        digest = hashlib.blake2b(digest_size=4)
        for message in self.messages:
            text = text_of(message)
            said = without_marks(text) if message.role == "user" else text
            digest.update(f"{message.role}\0{said}\0".encode())
        return digest


def _asks_to_continue(messages: Sequence[Message]) -> bool:
    if len(messages) < 3:
        return False
    part, wish = messages[-2:]
    return (
        part.role == "assistant"
        and not part.tool_calls
        and wish.role == "user"
        and text_of(wish).lstrip().lower().startswith("continue")
    )
