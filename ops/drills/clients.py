"""Clients of a drill: they chat over public HTTP, leave at random tokens, come back anywhere, keep what they saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from ops.drills.stack import KEY, PERSONALITY

CHAT = "/v1/chat/completions"
PATIENCE = 0.3
"""Seconds before a client whose connection was lost or refused tries again."""
AWAY = (0.0, 0.4)
"""Seconds for which a client leaves."""
ENDS = frozenset({"completed", "failed", "cancelled", "interrupted"})
READ_LIMIT = 20.0
"""Seconds of silence after which a client takes its connection for dead: heartbeats come every 15."""


@dataclass(kw_only=True)
class Chat:
    """One chat: what is asked, and what its client saw of the answer. Seconds are of `time.monotonic()`."""

    number: int
    session_id: str
    tokens: int
    """How long the reply is to be; 0 lets the model say what it was given, which shows what it saw of the session."""
    gap_ms: int
    tools: Sequence[tuple[str, str]] = ()
    """The tools that the model is told to call, and the entry each is to write."""
    streamed: bool = True
    leaves_at: Sequence[int] = ()
    """After so many content events the client goes away, and comes back."""
    stops_at: int = 0
    """After so many content events the client says stop, and listens on; 0: never."""
    on_busy: str = ""
    """What is to happen where the session is busy; empty leaves it to the personality."""
    more: dict[str, Any] = field(default_factory=dict)
    """Other fields of the request."""

    key: str = ""
    """Its Idempotency-Key. Without one it retries as OpenAI's clients do, which count their retries."""
    turn_id: str = ""
    text: str = ""
    last_id: int = 0
    finish: str = ""
    state: str = ""
    """How the turn ended as its client was told; empty while it was not."""
    errors: list[str] = field(default_factory=list)
    """Codes and connection losses on the way."""
    asked_at: float = 0.0
    first_at: float = 0.0
    ended_at: float = 0.0
    silence: float = 0.0
    """The longest time between two things the client was shown, its own absences left out."""
    silence_at: float = 0.0
    """When that silence began."""
    returns: int = 0
    stopped: bool = False
    """The client's stop was answered with 202."""
    shown: int = 0
    _last_at: float = 0.0

    def heard(self, now: float) -> None:
        """Something was shown: words, or news of a tool."""
        if self._last_at and now - self._last_at > self.silence:
            self.silence, self.silence_at = now - self._last_at, self._last_at
        self._last_at = now

    def absent(self, seconds: float) -> None:
        """The client was away by its own will: that is no silence of the system's."""
        if self._last_at:
            self._last_at += seconds

    def ended(self, state: str, now: float) -> None:
        """The client was told the end."""
        self.heard(now)
        self.state, self.ended_at = state, now


class Client:
    """Asks, listens, leaves and returns until each chat has an end or `limit` seconds are over."""

    def __init__(self, http: aiohttp.ClientSession, gateways: Sequence[str], limit: float, key: str = KEY) -> None:
        self._http, self._gateways, self._limit, self._key = http, gateways, limit, key

    async def open_session(self) -> str:
        """A session whose personality may use the drill's tools. Tries for as long as a chat would."""
        async with asyncio.timeout(self._limit):
            while True:
                try:
                    async with self._http.post(
                        random.choice(self._gateways) + "/v1/chat/sessions",  # noqa: S311
                        json={"personality_id": PERSONALITY},
                        headers=self._headers(),
                    ) as answer:
                        if answer.status == 201:
                            session_id: str = (await answer.json())["id"]
                            return session_id
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(PATIENCE)

    async def talk(self, chat: Chat, chance: random.Random) -> None:
        """Hear one chat out. Never raises for what the system does: the chat tells."""
        chat.asked_at = time.monotonic()
        try:
            async with asyncio.timeout(self._limit):
                while not chat.state:
                    await self._once(chat, chance)
        except TimeoutError:
            chat.errors.append("gave up")

    async def _once(self, chat: Chat, chance: random.Random) -> None:
        """One connection, to any gateway."""
        gateway = chance.choice(self._gateways)
        try:
            if not chat.streamed:
                await self._whole(chat, gateway)
            elif chat.turn_id:
                await self._resume(chat, gateway, chance)
            else:
                await self._ask(chat, gateway, chance)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            chat.errors.append(type(error).__name__)
        except _Left:
            away = chance.uniform(*AWAY)
            left = time.monotonic()
            await asyncio.sleep(away)
            chat.absent(time.monotonic() - left)
            chat.returns += 1
            return
        if not chat.state:
            await asyncio.sleep(PATIENCE)

    async def _ask(self, chat: Chat, gateway: str, chance: random.Random) -> None:
        body = {**self._body(chat), "stream": True, "stream_options": {"include_usage": True}}
        async with self._http.post(gateway + CHAT, json=body, headers=self._asking(chat)) as answer:
            if answer.status != 200:
                await self._refused(chat, answer)
            else:
                await self._listen(chat, answer, chance)

    async def _resume(self, chat: Chat, gateway: str, chance: random.Random) -> None:
        url = f"{gateway}/v1/turns/{chat.turn_id}/stream"
        async with self._http.get(url, headers=self._headers() | {"last-event-id": str(chat.last_id)}) as answer:
            if answer.status != 200:
                await self._refused(chat, answer)
            else:
                await self._listen(chat, answer, chance)

    async def _whole(self, chat: Chat, gateway: str) -> None:
        async with self._http.post(gateway + CHAT, json=self._body(chat), headers=self._asking(chat)) as answer:
            if answer.status != 200:
                await self._refused(chat, answer)
                return
            whole = msgspec.json.decode(await answer.read())
            chat.turn_id = whole["cozy"]["turn_id"]
            chat.text = whole["choices"][0]["message"]["content"] or ""
            chat.finish = whole["choices"][0]["finish_reason"]
            chat.ended(whole["cozy"].get("state", "completed"), time.monotonic())

    async def _refused(self, chat: Chat, answer: aiohttp.ClientResponse) -> None:
        """Not a reply: later, or never."""
        try:
            code = msgspec.json.decode(await answer.read())["error"]["code"]
        except (msgspec.DecodeError, KeyError, TypeError):
            code = "no error body"
        chat.errors.append(f"{answer.status} {code}")
        if answer.status not in (429, 500, 502, 503, 504):
            chat.ended("refused", time.monotonic())
        elif answer.status == 502:
            # The fault the reply ended with, told to one who did not stream it.
            chat.ended("failed", time.monotonic())

    async def _listen(self, chat: Chat, answer: aiohttp.ClientResponse, chance: random.Random) -> None:
        state = ""
        async for number, data in events_of(answer):
            if data == "[DONE]":
                chat.ended(state or "completed", time.monotonic())
                return
            said = msgspec.json.decode(data)
            if "error" in said:
                chat.errors.append(said["error"]["code"])
                if state in ENDS:
                    chat.ended(state, time.monotonic())
                return
            chat.turn_id = chat.turn_id or said.get("cozy", {}).get("turn_id", "")
            state = said.get("cozy", {}).get("state", state)
            if "tool" in said.get("cozy", {}):
                chat.heard(time.monotonic())
            if number is not None and number <= chat.last_id:
                continue
            chat.last_id = number or chat.last_id
            self._take(chat, said)
            if chat.stops_at and chat.shown >= chat.stops_at and not chat.stopped:
                await self._stop(chat, chance)
            if chat.shown in chat.leaves_at and not chat.finish:
                chat.leaves_at = [event for event in chat.leaves_at if event != chat.shown]
                raise _Left
        chat.errors.append("cut")

    async def _stop(self, chat: Chat, chance: random.Random) -> None:
        """Say stop to any gateway. Where that fails it is said again after the next words."""
        url = f"{chance.choice(self._gateways)}/v1/turns/{chat.turn_id}/cancel"
        try:
            async with self._http.post(url, headers=self._headers()) as answer:
                chat.stopped = answer.status == 202
        except (aiohttp.ClientError, TimeoutError) as error:
            chat.errors.append(f"stop: {type(error).__name__}")

    def _take(self, chat: Chat, said: dict[str, Any]) -> None:
        for choice in said["choices"]:
            text = choice["delta"].get("content") or ""
            chat.finish = choice["finish_reason"] or chat.finish
            if text and choice["index"] == 0:
                chat.text += text
                chat.shown += 1
                chat.heard(time.monotonic())
                chat.first_at = chat.first_at or time.monotonic()

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}"}

    def _asking(self, chat: Chat) -> dict[str, str]:
        call = ";;".join(f'{name} {{"entry": "{entry}"}}' for name, entry in chat.tools)
        scripted = {"x-scripted-gap-ms": str(chat.gap_ms)}
        if chat.tokens:
            # Real models never say the same twice: two workers' words must not be alike by chance.
            scripted |= {"x-scripted-tokens": str(chat.tokens), "x-scripted-vary": "1"}
        once = {"idempotency-key": chat.key} if chat.key else {"x-stainless-retry-count": str(len(chat.errors))}
        return self._headers() | scripted | once | {"x-scripted-call": call}

    def _body(self, chat: Chat) -> dict[str, Any]:
        said = {"role": "user", "content": f"Tell me of number {chat.number}."}
        cozy = {"session_id": chat.session_id} if chat.session_id else {"personality_id": PERSONALITY}
        wish = {"on_busy": chat.on_busy} if chat.on_busy else {}
        return {"model": "cozy/default", "messages": [said], "cozy": cozy | wish, **chat.more}


class _Left(Exception):
    """The client goes away in the middle of its reply."""


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[int | None, str]]:
    """The events of an SSE stream as (id, data); comments are left out, and an event cut in the middle too."""
    number: int | None = None
    async for line in answer.content:
        if not line.endswith(b"\n"):
            return
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "id":
            number = int(value)
        elif name == "data":
            yield number, value
            number = None


def connector() -> aiohttp.ClientSession:
    """HTTP for as many clients as a drill has."""
    timeout = aiohttp.ClientTimeout(total=None, connect=5, sock_read=READ_LIMIT)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout, read_bufsize=1 << 20)
