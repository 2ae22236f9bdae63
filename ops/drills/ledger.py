"""The ledger: a process outside the system that counts what tools really did. `python -m ops.drills.ledger --port N`

`POST /keyed` `{entry, key}` takes effect once a key, as a service with idempotency keys does; `POST /once` `{entry}`
takes effect every time. Each answers only after `--delay` seconds, so that whoever calls can die in between: the
effect is there, its answer is not. `GET /effects` lists `{entry, kind, effects, requests}`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import defaultdict

import msgspec
from aiohttp import web

KEYED, ONCE = "keyed", "once"


class Asked(msgspec.Struct, frozen=True):
    """What a tool asks for. `key` only where it has one."""

    entry: str
    key: str = ""


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """What was done for one entry, and how often it was asked for."""

    entry: str
    kind: str
    effects: int
    requests: int


class Book:
    """The entries in memory: the ledger is never killed."""

    def __init__(self) -> None:
        self._keys: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def write(self, kind: str, asked: Asked) -> None:
        """Note a request."""
        self._keys[asked.entry, kind].append(asked.key)

    def effects(self) -> list[Effects]:
        """All of it. What is asked again under the same key has no effect of its own."""
        return [
            Effects(entry=entry, kind=kind, requests=len(keys), effects=len(set(keys)) if kind == KEYED else len(keys))
            for (entry, kind), keys in self._keys.items()
        ]


def application(delay: float) -> web.Application:
    """The HTTP side of a fresh book."""
    book = Book()

    async def write(request: web.Request) -> web.Response:
        book.write(request.match_info["kind"], msgspec.json.decode(await request.read(), type=Asked))
        await asyncio.sleep(delay)
        return web.json_response({"noted": True})

    async def effects(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(book.effects()), content_type="application/json")

    app = web.Application()
    app.add_routes([web.post(f"/{{kind:{KEYED}|{ONCE}}}", write), web.get("/effects", effects)])
    return app


def main(argv: list[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills.ledger", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.6, help="seconds between an effect and its answer")
    options = parser.parse_args(argv)
    web.run_app(application(options.delay), host="127.0.0.1", port=options.port, print=None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
