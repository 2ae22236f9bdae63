"""A stock client: behaves as OpenAI's SDK does, over plain HTTP, and counts what that would raise as an error.

It tries a refused connection, a broken one before the answer's headers, 408, 409, 429 and 5xx twice more, with the
SDK's pauses and without an Idempotency-Key. A stream that breaks it does not mend; but its application reads a reply
on where the gateway said that it can.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import aiohttp
import msgspec

from ops.drills.clients import CHAT, ENDS, Chat, events_of
from ops.drills.stack import KEY

RETRIES = 2
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
AGAIN = (408, 409, 429)
RETRY_COUNT = "x-stainless-retry-count"


class ClientError(Exception):
    """What the application behind a stock client would see as an exception. The message says what it was."""


class StockClient:
    """One application with its connections. `retried` and `resumed` count what its user never noticed."""

    def __init__(self, http: aiohttp.ClientSession, url: str, chance: random.Random) -> None:
        self._http, self._url, self._chance = http, url, chance
        self.retried: Counter[str] = Counter()
        self.resumed: Counter[str] = Counter()

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """An answer in one piece, as JSON. Raises ClientError."""
        return msgspec.json.decode(await self._tried(method, path, body, headers or {}, whole=True))

    async def whole(self, chat: Chat) -> None:
        """A chat in one piece. Raises ClientError."""
        answer = await self.ask("POST", CHAT, self._body(chat), self._scripted(chat))
        chat.turn_id = answer["cozy"]["turn_id"]
        chat.text = answer["choices"][0]["message"]["content"] or ""
        chat.ended(answer["cozy"].get("state", "completed"), time.monotonic())

    async def streamed(self, chat: Chat) -> None:
        """A chat as a stream, to its end. Raises ClientError."""
        body = {**self._body(chat), "stream": True}
        await self._heard_out(chat, await self._tried("POST", CHAT, body, self._scripted(chat)), resumable=False)
        while not chat.state:
            path = f"/v1/turns/{chat.turn_id}/stream"
            answer = await self._tried("GET", path, None, {"last-event-id": str(chat.last_id)})
            await self._heard_out(chat, answer, resumable=True)

    async def _tried(self, method: str, path: str, body: Any, headers: dict[str, str], *, whole: bool = False) -> Any:
        problem = ""
        for tries in range(RETRIES + 1):
            if tries:
                self.retried[problem] += 1
                await asyncio.sleep(self._pause(tries))
            try:
                answer = await self._http.request(
                    method,
                    self._url + path,
                    json=body,
                    headers={"authorization": f"Bearer {KEY}", RETRY_COUNT: str(tries), **headers},
                )
                if answer.status < 400:
                    return await answer.read() if whole else answer
                problem = await _problem(answer)
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = type(error).__name__
                continue
            if not _may_be_tried_again(answer):
                break
        raise ClientError(f"{method} {path.partition('?')[0]}: {problem}")

    def _pause(self, tries: int) -> float:
        pause = min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE)
        return pause * (1 - 0.25 * self._chance.random())

    async def _heard_out(self, chat: Chat, answer: aiohttp.ClientResponse, *, resumable: bool) -> None:
        """Read a stream to its end, or to where it says that it goes on elsewhere. Raises ClientError."""
        state = ""
        try:
            async with answer:
                async for number, data in events_of(answer):
                    if data == "[DONE]":
                        chat.ended(state or "completed", time.monotonic())
                        return
                    said = msgspec.json.decode(data)
                    if "error" in said:
                        self._told(chat, said["error"], state)
                        return
                    state = said.get("cozy", {}).get("state", state)
                    _take(chat, said, number)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClientError(f"stream broke: {type(error).__name__}, turn {chat.turn_id}") from error
        if not resumable:
            raise ClientError(f"stream ended without its end, turn {chat.turn_id}")
        # What EventSource does by itself: come back with the last id.
        self.resumed["a resumable stream moved"] += 1

    def _told(self, chat: Chat, error: dict[str, Any], state: str) -> None:
        if f"/v1/turns/{chat.turn_id}/stream" in error["message"]:
            self.resumed["told where the reply goes on"] += 1
            return
        if state in ENDS:
            chat.ended(state, time.monotonic())
        raise ClientError(f"stream: {error['code']} {state}, turn {chat.turn_id}")

    def _body(self, chat: Chat) -> dict[str, Any]:
        said = {"role": "user", "content": f"Tell me of number {chat.number}."}
        return {"model": "cozy/default", "messages": [said], "cozy": {"session_id": chat.session_id}}

    def _scripted(self, chat: Chat) -> dict[str, str]:
        return {"x-scripted-tokens": str(chat.tokens), "x-scripted-gap-ms": str(chat.gap_ms)}


def _take(chat: Chat, said: dict[str, Any], number: int | None) -> None:
    chat.turn_id = chat.turn_id or said.get("cozy", {}).get("turn_id", "")
    if number is not None and number <= chat.last_id:
        return
    chat.last_id = number or chat.last_id
    for choice in said["choices"]:
        if text := choice["delta"].get("content"):
            chat.text += text
            chat.heard(time.monotonic())
            chat.first_at = chat.first_at or time.monotonic()


def _may_be_tried_again(answer: aiohttp.ClientResponse) -> bool:
    told = answer.headers.get("x-should-retry")
    return told == "true" or (told != "false" and (answer.status in AGAIN or answer.status >= 500))


async def _problem(answer: aiohttp.ClientResponse) -> str:
    try:
        code = msgspec.json.decode(await answer.read())["error"]["code"]
    except (msgspec.DecodeError, KeyError, TypeError):
        code = "no error body"
    return f"{answer.status} {code}"
