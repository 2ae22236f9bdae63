"""The development keys: known to everybody, so they open nothing outside development."""

from __future__ import annotations

import hashlib

import msgspec


class DevelopmentCaller(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a development key stands for. The id is the same in every database."""

    user_id: str
    name: str
    role: str


def key_hash_of(key: str) -> str:
    """What is known of a key outside the caller's own hands: its SHA-256 in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


DEVELOPMENT_CALLERS = {
    key_hash_of("sk-cozy-dev"): DevelopmentCaller(
        user_id="00000000-0000-7000-8000-000000000001", name="dev", role="user"
    ),
    key_hash_of("sk-cozy-admin"): DevelopmentCaller(
        user_id="00000000-0000-7000-8000-000000000002", name="admin", role="admin"
    ),
}
