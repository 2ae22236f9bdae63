"""A server that answers chats as a system in trouble does, one prepared answer after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from aiohttp import web

TURN = "t1"


class Fickle:
    """Gives its `answers` in order; `asked` has the method and the last event id of every request."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.paths: list[str] = []
        self._answers = list(answers)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.asked.append((request.method, request.headers.get("last-event-id")))
        return await self._answers.pop(0).send(request)


class Answer:
    """A status with an error's code."""

    def __init__(self, status: int, code: str = "ENGINE_OVERLOADED") -> None:
        self._status, self._code = status, code

    async def send(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": self._code}}, status=self._status)


class Whole(Answer):
    """An answer in one piece."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def send(self, request: web.Request) -> web.StreamResponse:
        choices = [{"message": {"content": self._text}, "finish_reason": "stop"}]
        return web.json_response({"choices": choices, "cozy": {"turn_id": TURN}})


class Stream(Answer):
    """A stream of words, numbered from `first`, that ends as its last event says, or is cut off.

    `pause`: seconds before each word.
    """

    def __init__(self, *words: str, first: int = 2, ends: Sequence[object] = ("[DONE]",), pause: float = 0) -> None:
        self._words, self._first, self._ends, self._pause = words, first, ends, pause

    async def send(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"id: 1\n" + event({"choices": [], "cozy": {"turn_id": TURN}}))
        for number, word in enumerate(self._words, self._first):
            await asyncio.sleep(self._pause)
            await response.write(b": ping\nid: %d\n" % number + event(chunk(word)))
        for end in self._ends:
            await response.write(event(end))
        return response


def chunk(word: str) -> dict[str, object]:
    """A chunk with one word."""
    return {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}


def event(data: object) -> bytes:
    """An event of a stream."""
    text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    return f"data: {text}\n\n".encode()


INTERRUPTED = ({"choices": [], "cozy": {"state": "interrupted"}}, {"error": {"code": "ENGINE_FAILED"}})
"""How a reply ends that cannot go on."""
CUT: tuple[object, ...] = ()
"""How a stream ends whose gateway died."""
STOPPED = ({"choices": [], "cozy": {"state": "cancelled", "stopped": True}}, "[DONE]")
"""How a reply ends that its reader stopped."""
DRAINED = ({"error": {"code": "ENGINE_OVERLOADED"}},)
"""How a stream ends whose gateway wants to stop, while the reply goes on."""
