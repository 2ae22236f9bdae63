"""Finds out who calls, from a key's hash."""

from __future__ import annotations

from schemas.faults import AuthExpired, AuthInvalid
from schemas.records import Caller
from workers.records.development import DEVELOPMENT_CALLERS, DevelopmentCaller
from workers.records.last_used import LastUsed
from workers.storage.callers import Callers, KeyRow


class CallerDesk:
    """Tells whose key it is. `dev_keys`: whether the development keys are among them; only in development.

    Raises AuthInvalid, AuthExpired, psycopg errors.
    """

    def __init__(self, callers: Callers, last_used: LastUsed, *, dev_keys: bool) -> None:
        self._callers, self._last_used, self._dev_keys = callers, last_used, dev_keys

    async def find(self, key_hash: str) -> Caller:
        """The caller of the key with this SHA-256 (hex)."""
        known = DEVELOPMENT_CALLERS.get(key_hash)
        if known is not None:
            # Looked at before the table: a row with a development key's hash opens nothing elsewhere.
            return await self._find_developer(known)
        caller = caller_of(await self._callers.find_key(key_hash))
        if caller.key_id is not None:
            self._last_used.note(caller.key_id)
        return caller

    async def _find_developer(self, known: DevelopmentCaller) -> Caller:
        if not self._dev_keys:
            raise AuthInvalid
        user = await self._callers.find_user(known.name)
        if user is None:
            await self._callers.add_user(known.user_id, known.name, known.role)
            user = await self._callers.find_user(known.name)
        if user is None or not user.active:
            raise AuthInvalid
        return Caller(user_id=user.user_id, role=known.role)


def caller_of(key: KeyRow | None) -> Caller:
    """Whom a stored key stands for. A key that is revoked, or whose user is not active, is told no more than that."""
    if key is None or key.revoked or not key.active:
        raise AuthInvalid
    if key.expired:
        raise AuthExpired
    return Caller(user_id=key.user_id, role=key.role, key_id=key.key_id)
