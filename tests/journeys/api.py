"""A caller of the running system: plain HTTP, streams with their raw bytes, and the model server's own record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from tests.journeys.stack import Stack

LIMIT = aiohttp.ClientTimeout(total=30)
"""Nothing hangs: whatever takes longer fails its test."""
CHAT = "/v1/chat/completions"

Headers = Mapping[str, str] | None


@dataclass(frozen=True)
class Answer:
    """An answer in one piece. `body` is its JSON, or its text where it is none."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def error(self) -> dict[str, Any]:
        """What an answer that is no success says of itself."""
        error: dict[str, Any] = self.body["error"]
        return error

    @property
    def text(self) -> str:
        """The reply's words."""
        assert self.status == 200, self.body
        text: str = self.body["choices"][0]["message"]["content"]
        return text


@dataclass
class Event:
    """One event of a stream, as a client that follows the specification takes it."""

    id: int | None
    data: Any


@dataclass
class Stream:
    """A stream that was read to its end."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    header_seconds: float
    """From sending the request to the answer's headers."""
    events: list[Event] = field(init=False)

    def __post_init__(self) -> None:
        self.events = parse(self.raw) if self.status == 200 else []

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """Every event that is a chunk."""
        return [event.data for event in self.events if isinstance(event.data, dict) and "choices" in event.data]

    @property
    def deltas(self) -> list[dict[str, Any]]:
        """What every chunk says of its choices."""
        return [choice["delta"] for chunk in self.chunks for choice in chunk["choices"]]

    @property
    def text(self) -> str:
        """The words of the first choice."""
        choices = [choice for chunk in self.chunks for choice in chunk["choices"] if choice["index"] == 0]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def cozy(self) -> dict[str, Any]:
        """What the first chunk says of the turn."""
        cozy: dict[str, Any] = self.chunks[0]["cozy"]
        return cozy

    @property
    def finish_reasons(self) -> list[str]:
        """Why the choices ended."""
        reasons = [choice["finish_reason"] for chunk in self.chunks for choice in chunk["choices"]]
        return [reason for reason in reasons if reason]

    @property
    def error(self) -> dict[str, Any] | None:
        """What the stream's error event says, if it has one; it must be the last."""
        last = self.events[-1].data
        return last.get("error") if isinstance(last, dict) else None

    @property
    def whole(self) -> bool:
        """Whether it ended as a reply ends."""
        return self.events[-1].data == "[DONE]" and bool(self.finish_reasons)


def parse(raw: bytes) -> list[Event]:
    """The events of an SSE stream; `[DONE]` stays text. Whatever is not of that form raises."""
    events: list[Event] = []
    number: int | None = None
    for line in raw.decode().split("\n"):
        name, _, value = line.partition(": ")
        if name == "id":
            number = int(value)
        elif name == "data":
            data = value if value == "[DONE]" else msgspec.json.decode(value)
            events.append(Event(number, data))
            number = None
        else:
            assert name == "" or line == ": ping", line
    return events


class Api:
    """One caller, known by a key."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str) -> None:
        self.url, self.key = url, key
        self._http = http

    async def call(self, method: str, path: str, body: Any = None, headers: Headers = None) -> Answer:
        """One request. `body` is sent as JSON, bytes as they are; without a key where that is empty."""
        async with self._http.request(
            method, self.url + path, data=_encoded(body), headers=self._with_key(body, headers), timeout=LIMIT
        ) as answer:
            raw = await answer.read()
            is_json = answer.content_type == "application/json"
            return Answer(answer.status, answer.headers, msgspec.json.decode(raw) if is_json else raw.decode())

    async def chat(self, said: Any, *, cozy: Any = None, headers: Headers = None, **more: Any) -> Answer:
        """A chat that is answered in one piece."""
        return await self.call("POST", CHAT, request(said, cozy, more), headers)

    async def stream(self, said: Any, *, cozy: Any = None, headers: Headers = None, **more: Any) -> Stream:
        """A chat that is streamed, read to its end."""
        began = time.monotonic()
        body = {**request(said, cozy, more), "stream": True}
        async with self._http.post(
            self.url + CHAT, data=_encoded(body), headers=self._with_key(body, headers), timeout=LIMIT
        ) as answer:
            took = time.monotonic() - began
            return Stream(answer.status, answer.headers, await answer.read(), took)

    def _with_key(self, body: Any, headers: Headers) -> dict[str, str]:
        key = {"authorization": f"Bearer {self.key}"} if self.key else {}
        kind = {"content-type": "application/json"} if body is not None else {}
        return {**key, **kind, **(headers or {})}

    async def session(self, **about: Any) -> str:
        """A new session's id."""
        made = await self.call("POST", "/v1/chat/sessions", about)
        assert made.status == 201, made.body
        session_id: str = made.body["id"]
        return session_id

    async def messages(self, session_id: str) -> list[dict[str, Any]]:
        """Every message of a session, oldest first."""
        found: list[dict[str, Any]] = []
        path = f"/v1/chat/sessions/{session_id}/messages?limit=100"
        cursor = ""
        while True:
            page = await self.call("GET", path + cursor)
            assert page.status == 200, page.body
            found += page.body["data"]
            if not page.body["has_more"]:
                return found
            cursor = f"&cursor={page.body['next_cursor']}"

    async def stored_reply(self, session_id: str) -> str:
        """The last words that are stored as the assistant's."""
        said = [message for message in await self.messages(session_id) if message["role"] == "assistant"]
        content: str = said[-1]["content"]
        return content


def request(said: Any, cozy: Any = None, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A chat request to the default personality. `said`: a user's words, or the messages."""
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    ours = {"cozy": cozy} if cozy else {}
    return {"model": "cozy/default", "messages": messages, **ours, **(more or {})}


def _encoded(body: Any) -> bytes | None:
    return body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)


class Upstream:
    """The scripted model server's own record of what it was asked."""

    def __init__(self, http: aiohttp.ClientSession, stack: Stack) -> None:
        self._http, self._stack = http, stack

    @property
    def _url(self) -> str:
        return self._stack.entry("scripted").url

    async def asked(self, marker: str) -> list[dict[str, Any]]:
        """The bodies of every chat request that holds this word, oldest first."""
        async with self._http.get(f"{self._url}/scripted/requests?limit=1000", timeout=LIMIT) as answer:
            listed = msgspec.json.decode(await answer.read())
        chats = [record for record in listed["data"] if record["path"] == CHAT]
        return [chat["body"] for chat in chats if marker in str(chat["body"])]

    async def asked_once(self, marker: str) -> dict[str, Any]:
        """The only such request."""
        [body] = await self.asked(marker)
        return body

    async def says(self, asked: dict[str, Any], tokens: int) -> str:
        """What the model says to a recorded request where nothing disturbs it: its replies are always the same."""
        messages = [message for message in asked["messages"] if message is not asked["messages"][-1]]
        body = {**asked, "messages": messages if asked.get("continue_final_message") else asked["messages"]}
        plain = {name: body[name] for name in ("model", "messages", "tools") if name in body}
        headers = {"x-scripted-tokens": str(tokens), "authorization": "Bearer scripted"}
        async with self._http.post(self._url + CHAT, json=plain, headers=headers, timeout=LIMIT) as answer:
            said: str = (await answer.json())["choices"][0]["message"]["content"]
            return said
