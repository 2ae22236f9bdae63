"""Identifiers: UUIDv7 for what is new, and ids derived from a turn so that doing a thing twice names it once."""

from __future__ import annotations

import hashlib
import os
import time
import uuid

MAX_MILLISECONDS = (1 << 48) - 1


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562, section 5.7): sorts by creation time to the millisecond."""
    return id_from(time.time_ns() // 1_000_000, os.urandom(10))


def id_from(milliseconds: int, chance: bytes) -> str:
    """The UUIDv7 of a moment (Unix milliseconds, 48 bits) and 10 random bytes."""
    value = (milliseconds & MAX_MILLISECONDS) << 80 | int.from_bytes(chance, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def part_of(turn_id: str, *names: object) -> str:
    """The id of one part of a turn (its session, a message, a call): always the same for the same names.

    It keeps the turn's own time, so it sorts beside the turn, and has UUIDv7's form.
    """
    digest = hashlib.sha256("/".join((turn_id, *map(str, names))).encode()).digest()
    return id_from(int(turn_id.replace("-", "")[:12], 16), digest[:10])


def keyed_id(caller: str, key: str) -> str:
    """The turn id of a caller's Idempotency-Key: a UUIDv8 (RFC 9562, section 5.8), the same on every gateway."""
    digest = hashlib.sha256(f"{caller}/{key}".encode()).digest()[:16]
    value = int.from_bytes(digest, "big") & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Whether the text is a UUID in canonical form. A malformed id is treated as not found, never as an error."""
    if len(text) != 36:
        return False
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
