"""How structs become bytes on the bus and at rest: msgpack, one encoder and one cached decoder per type."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Bytes of any struct or plain value."""


_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of a type or union, made once per process. For hot paths and unions."""
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    return found


def decode(data: bytes | memoryview, kind: type[T]) -> T:
    """The value of the given type. Raises msgspec.DecodeError where the bytes are not one.

    Fields the type does not know are skipped, so that a newer sender may add some.
    """
    value: T = decoder(kind).decode(data)
    return value
