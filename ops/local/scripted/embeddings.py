"""Embeddings without a model: unit vectors of hashed words, so that texts with the same words lie close."""

import base64
import hashlib
import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ops.local.scripted import tokens
from ops.local.scripted.chat_request import decode
from ops.local.scripted.problems import Problem

_DIMENSIONS = 256
_MOST_INPUTS = 2048
_HAN_OR_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_HAN_OR_KANA}]|[^\W{_HAN_OR_KANA}]+")
_STEM = 4


class EmbeddingsRequest(Struct):
    """What was asked. Unknown keys are ignored."""

    input: str | list[str | int | list[int]]
    model: str = "scripted"
    dimensions: Annotated[int, Meta(ge=1, le=4096)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


def embeddings_request(body: bytes) -> EmbeddingsRequest:
    """The request in `body`. Problem (400) names the field at fault."""
    request = decode(body, _DECODER)
    texts = texts_of(request)
    if not texts or len(texts) > _MOST_INPUTS or not all(texts):
        raise Problem(400, f"'input' must be 1 to {_MOST_INPUTS} texts, none empty.", param="input")
    return request


def texts_of(request: EmbeddingsRequest) -> list[str]:
    """The texts to embed; token ids count as words."""
    given = request.input
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(one, int) for one in given):
        return [" ".join(map(str, given))]
    return [" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in given]


def embed(text: str, dimensions: int = _DIMENSIONS) -> list[float]:
    """A vector of length 1: the same for the same text, near for texts that share words or their beginnings."""
    vector = [0.0] * dimensions
    words = _WORD.findall(text.lower()) or [text]
    for word in words:
        _add(vector, f"word {word}", 1.0)
        _add(vector, f"stem {word[:_STEM]}", 0.5)
    length = math.sqrt(sum(value * value for value in vector))
    if length == 0.0:
        vector[0] = length = 1.0
    return [value / length for value in vector]


def answer(request: EmbeddingsRequest) -> bytes:
    """The response to `request`, as JSON."""
    texts = texts_of(request)
    data = []
    for index, text in enumerate(texts):
        vector = embed(text, request.dimensions or _DIMENSIONS)
        shown = _base64(vector) if request.encoding_format == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    words = sum(max(1, tokens.count_words(text)) for text in texts)
    usage = {"prompt_tokens": words, "total_tokens": words}
    made: dict[str, Any] = {"object": "list", "data": data, "model": request.model, "usage": usage}
    return msgspec.json.encode(made)


def _add(vector: list[float], feature: str, weight: float) -> None:
    number = _hash(feature)
    vector[(number >> 1) % len(vector)] += weight if number & 1 else -weight


@lru_cache(maxsize=65_536)
def _hash(feature: str) -> int:
    return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest())


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


_DECODER = msgspec.json.Decoder(EmbeddingsRequest)
