"""Callers: who sends a request. Keys are checked from a short memory that the records worker fills on a miss."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from schemas import codec
from schemas.faults import AuthInvalid, AuthMissing, Fault
from schemas.records import Caller, CallersRevoked

log = structlog.get_logger()

DOUBT_PATIENCE = 0.4
"""Seconds that asking for a known caller may delay the request."""
AGAIN_AFTER = 1.0
"""Seconds before a question about a known caller that found nobody is asked again."""
REFUSAL = 1.0
"""Seconds a refusal is remembered: a key made right after its first use works a moment later."""
REMEMBERED = 10_000
LONGEST_KEY = 512

Find = Callable[[str], Awaitable[Caller]]
Clock = Callable[[], float]


def key_of(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The key of a request: `Authorization: Bearer`, else `x-api-key` or `api-key`. Raises AuthMissing, AuthInvalid."""
    bearer = other = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, bearer = value.strip().partition(b" ")
            if scheme.lower() != b"bearer":
                raise AuthInvalid("Send the API key as 'Authorization: Bearer <key>'.")
        elif name in (b"x-api-key", b"api-key"):
            other = value
    key = bearer.strip() or other.strip()
    if not key:
        raise AuthMissing()
    if len(key) > LONGEST_KEY:
        raise AuthInvalid()
    return key


def hash_of(key: bytes) -> str:
    """What is known of a key outside of its owner's hands. Looking a hash up tells nothing by its timing."""
    return hashlib.sha256(key).hexdigest()


def refuses(fault: Fault) -> bool:
    """Whether this is an answer about the key, rather than none."""
    return fault.status in (401, 403)


@dataclass(slots=True)
class Known:
    """A caller and when that was learned. `doubtful`: a revocation may have been missed since."""

    caller: Caller
    learned: float
    doubtful: bool = False
    ask_after: float = 0.0


class Callers:
    """The gateway's memory of callers: at most `REMEMBERED` of them, and as many refusals.

    `find` asks the records worker for the caller of a key's hash, or raises the fault that refuses the key. An answer
    is taken as it is for `fresh` seconds; for as long again the caller is served while it is asked for anew; later,
    or after a doubt, it is asked for first. A known caller is served for `stale` seconds while nobody answers.
    """

    def __init__(self, find: Find, fresh: float = 30.0, stale: float = 300.0, clock: Clock = time.monotonic) -> None:
        self._find, self._fresh, self._stale, self._clock = find, fresh, stale, clock
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._refused: OrderedDict[str, tuple[Fault, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Caller]] = {}
        self._revocations = 0

    async def require(self, key_hash: str) -> Caller:
        """The caller of a key. Raises AuthInvalid, AuthExpired, or StorageUnavailable for one not known here."""
        known, now = self._known.get(key_hash), self._clock()
        if known is None or now - known.learned >= self._stale:
            return await self._stranger(key_hash, now)
        self._known.move_to_end(key_hash)
        age = now - known.learned
        if (age < self._fresh and not known.doubtful) or now < known.ask_after:
            return known.caller
        asking = self._ask(key_hash)
        if age < 2 * self._fresh and not known.doubtful:
            return known.caller
        return await self._sooner_or_stale(asking, known)

    async def _stranger(self, key_hash: str, now: float) -> Caller:
        fault, until = self._refused.get(key_hash, (None, 0.0))
        if fault is not None and now < until:
            raise type(fault)(fault.record.message)
        return await asyncio.shield(self._ask(key_hash))

    async def _sooner_or_stale(self, asking: asyncio.Task[Caller], known: Known) -> Caller:
        """What the records worker says, if it says so soon; else what is remembered."""
        try:
            async with asyncio.timeout(DOUBT_PATIENCE):
                return await asyncio.shield(asking)
        except TimeoutError:
            known.ask_after = self._clock() + AGAIN_AFTER
        except Fault as fault:
            if refuses(fault):
                raise
        return known.caller

    def _ask(self, key_hash: str) -> asyncio.Task[Caller]:
        """The running question about this key; one for all who wait, going on when any of them leaves."""
        task = self._asking.get(key_hash)
        if task is None:
            task = self._asking[key_hash] = asyncio.create_task(self._learn(key_hash))
            task.add_done_callback(lambda done: self._asked(key_hash, done))
        return task

    def _asked(self, key_hash: str, task: asyncio.Task[Caller]) -> None:
        self._asking.pop(key_hash, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Fault):
            log.error("caller_question_failed", error=type(error).__name__)
        known = self._known.get(key_hash)
        if error is not None and known is not None:
            known.ask_after = self._clock() + AGAIN_AFTER

    async def _learn(self, key_hash: str) -> Caller:
        before = self._revocations
        try:
            caller = await self._find(key_hash)
        except Fault as fault:
            if refuses(fault):
                self._known.pop(key_hash, None)
                _remember(self._refused, key_hash, (fault, self._clock() + REFUSAL))
            raise
        if before == self._revocations:  # else the answer may be older than a revocation: good for this once only
            self._refused.pop(key_hash, None)
            _remember(self._known, key_hash, Known(caller, self._clock()))
        return caller

    def hear_revoked(self, _subject: str, data: bytes) -> None:
        """A key, or all of a user's, is void from now on. A message that cannot be read puts everyone in doubt."""
        self._revocations += 1
        try:
            revoked = codec.decode(data, CallersRevoked)
        except msgspec.DecodeError:
            log.error("revocation_unreadable")
            self.doubt()
            return
        if revoked.key_hash is not None:
            self._known.pop(revoked.key_hash, None)
        if revoked.user_id is not None:
            theirs = [key for key, known in self._known.items() if known.caller.user_id == revoked.user_id]
            for key in theirs:
                del self._known[key]

    def doubt(self) -> None:
        """Revocations may have been missed: ask for everyone again before serving them."""
        self._revocations += 1
        for known in self._known.values():
            known.doubtful, known.ask_after = True, 0.0


def _remember(memory: OrderedDict[str, Any], key: str, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
