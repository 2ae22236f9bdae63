"""The body of a request: read within its limit, decoded strictly, and every complaint naming the path."""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from itertools import accumulate
from typing import Any, TypeVar, cast

import msgspec
from litestar.types import Receive, Scope

from gateway.problems import ClientGone, clean
from schemas.faults import BodyTooLarge, InvalidValue, NotJson, WrongMediaType

T = TypeVar("T")

MAX_DEPTH = 100
"""Brackets within brackets. Every later reader of the value, in any process, has room for as many."""
PATIENCE = 30.0
"""Seconds a client may be silent in the middle of its body."""

_JSON_TYPE = re.compile(rb"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_PATH = re.compile(r"^(?P<complaint>.*?)(?: - at `(?:key` in `)?\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]+)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `")
_NO_BRACKET = bytes(set(range(256)) - set(b'{}[]"'))
_STRINGS = re.compile(rb'"[^"]*"')
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_STEPS = bytes({ord("["): 1, ord("{"): 1, ord("]"): 255, ord("}"): 255}.get(code, 0) for code in range(256))


async def read(scope: Scope, receive: Receive, kind: type[T], limit: int, empty: bytes = b"") -> T:
    """The request's JSON body as a value of `kind`.

    `limit` is in bytes; `empty` is what a body of no bytes stands for. Raises WrongMediaType, BodyTooLarge (naming
    the limit), NotJson or InvalidValue (naming the path); ClientGone where the client left.
    """
    announced, is_json = _announced(scope["headers"])
    if announced > limit:
        raise _too_large(limit)
    data = await _whole(receive, limit)
    if data and not is_json:  # clients name strange types for a body of nothing
        raise WrongMediaType
    return decode(data or empty, kind)


def _announced(headers: Any) -> tuple[int, bool]:
    """The announced length, 0 where none is; and whether the media type is JSON's, as it is where none is named."""
    length, is_json = 0, True
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            length = int(value)
        elif name == b"content-type":
            is_json = _JSON_TYPE.fullmatch(value.strip()) is not None
    return length, is_json


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than the limit of {limit} bytes.", details={"limit_bytes": limit})


async def _whole(receive: Receive, limit: int) -> bytes:
    """All of the body. What a client sends above the limit is left to the server to throw away."""
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                message: Any = await receive()
        except TimeoutError:
            raise NotJson(f"The request body did not arrive: {PATIENCE:.0f} s passed without a byte.") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


@lru_cache(maxsize=64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode(data: bytes, kind: type[T]) -> T:
    """JSON bytes as a value of `kind`. Raises NotJson or InvalidValue, whose texts repeat nothing of the body."""
    try:
        if not data.isascii():
            data.decode()  # msgspec does not look into what it skips
        value = cast(T, _decoder(cast(Any, kind)).decode(data))
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except UnicodeDecodeError:
        raise NotJson("The request body is not valid UTF-8.") from None
    except msgspec.DecodeError as error:
        where = str(error).removeprefix("JSON is malformed: ")
        raise NotJson(f"The request body is not valid JSON: {where}.") from None
    except RecursionError:
        raise _too_deep() from None
    if b"\\u0000" in data and _NUL.search(data):
        raise InvalidValue("A text holds the character U+0000, which cannot be stored.")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and depth(data) > MAX_DEPTH:
        raise _too_deep()
    return value


def _too_deep() -> InvalidValue:
    return InvalidValue(f"The request body is nested more than {MAX_DEPTH} levels deep.")


def _invalid(text: str) -> InvalidValue:
    """msgspec's "Expected `str`, got `int` - at `$.messages[0].role`" as a fault with the path in OpenAI's style."""
    found = _PATH.match(text)
    assert found is not None  # the pattern takes any text
    complaint, path = clean(found["complaint"]), found["path"] or ""
    if missing := _MISSING.match(complaint):
        path = f"{path}.{missing['name']}" if path else missing["name"]
    if _UNKNOWN.match(complaint):
        complaint = "Object contains an unknown key"
    return InvalidValue(f"{complaint}.", param=path or None)


def depth(data: bytes) -> int:
    """How deep the brackets of valid JSON nest, those within strings not counted. Linear, whatever the input."""
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_BRACKET)
    steps = _STRINGS.sub(b"", bare).translate(_STEPS)
    return max(accumulate(memoryview(steps).cast("b")), default=0)
