"""What one line of a chat stream says, read as cheaply as a load program must."""

import re
from typing import Any

import msgspec

DATA = b"data:"
DONE = b"[DONE]"

_DELTA = b'"delta"'
_CONTENT = b'"content":"'
_USAGE = b'"usage":{'
_QUOTE = ord('"')
_BRACE = ord("}")
_PLAIN_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int


class Chunk(msgspec.Struct):
    """The parts of a chat.completion.chunk that are measured; `error` is whatever stands there."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None

    def has_content(self) -> bool:
        """Whether any choice brings text."""
        return any(choice.delta is not None and choice.delta.content for choice in self.choices)


class _Refusal(msgspec.Struct):
    error: Any = None


_chunks = msgspec.json.Decoder(Chunk)
_refusals = msgspec.json.Decoder(_Refusal)


def is_plainly_content(line: bytes) -> bool:
    """Whether a data line surely is a whole chunk with text and nothing else to count.

    False means only that a look was not enough: `read_chunk` then tells.
    """
    # Looking from "delta" on: `cozy` may stand before it and hold a "content" of its own. Without a delta the
    # inner find gives -1, from where nothing is found. A quote inside text is escaped, so text cannot match.
    at = line.find(_CONTENT, line.find(_DELTA))
    return at > 0 and line[-1] == _BRACE and line[at + len(_CONTENT)] != _QUOTE and _USAGE not in line


def read_chunk(payload: bytes) -> Chunk:
    """Decode an event's data. Raises msgspec.DecodeError for anything but a JSON object of that shape."""
    return _chunks.decode(payload)


def error_code(error: Any) -> str:
    """The code of an OpenAI-shaped error object, else its type, else "no_code".

    Never its message, and nothing that does not look like a code: a report must not repeat a user's words.
    """
    if isinstance(error, dict):
        for value in (error.get("code"), error.get("type")):
            if value is not None and _PLAIN_CODE.fullmatch(str(value)):
                return str(value)
    return "no_code"


def refusal_code(body: bytes) -> str:
    """The error code in an HTTP error's body, "no_code" if it is not of OpenAI's shape."""
    try:
        return error_code(_refusals.decode(body).error)
    except msgspec.DecodeError:
        return "no_code"
