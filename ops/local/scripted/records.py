"""What the server was asked: the last requests, for tests to look at."""

import itertools
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

_MOST_RECORDS = 1000
_MOST_BYTES = 64 * 1024 * 1024
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


class Record(msgspec.Struct):
    """One request and what became of it so far."""

    id: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: datetime
    status: int | None = None
    tokens_sent: int = 0
    finished: bool = False
    closed_early: bool = False


class Records:
    """The last 1000 requests, fewer where their bodies together exceed 64 MB."""

    def __init__(self) -> None:
        self._kept: deque[Record] = deque()
        self._bytes = 0
        self._ids = itertools.count(1)

    def add(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Record:
        """Keep a request; the record returned is to be brought up to date."""
        shown = {name: value[-4:] if name in _CREDENTIALS else value for name, value in headers.items()}
        record = Record(next(self._ids), method, path, shown, body, datetime.now(UTC))
        self._kept.append(record)
        self._bytes += len(body)
        while len(self._kept) > _MOST_RECORDS or (self._bytes > _MOST_BYTES and len(self._kept) > 1):
            self._bytes -= len(self._kept.popleft().body)
        return record

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._bytes = 0

    def listing(self, limit: int) -> bytes:
        """The newest `limit` records, oldest first, as JSON."""
        newest = list(itertools.islice(reversed(self._kept), limit))
        data = [_shown(record) for record in reversed(newest)]
        return msgspec.json.encode({"object": "list", "data": data, "has_more": len(self._kept) > len(data)})


def _shown(record: Record) -> dict[str, Any]:
    return {**msgspec.structs.asdict(record), "body": _body(record.body)}


def _body(body: bytes) -> Any:
    """The body as it can be shown in JSON: as JSON, or as text, or null if there is none."""
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace")
