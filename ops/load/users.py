"""A virtual user: one connection, one prepared request, sent again and again."""

import asyncio
import errno
from typing import Any

import msgspec

from ops.load.connection import Connection
from ops.load.plan import Plan, Target
from ops.load.replies import Answer, Reply
from ops.load.tally import Tally

QUESTION = "Say as many words as you were told to."


class NotPrepared(Exception):
    """What comes before measuring failed; the message says where and how."""


class _Session(msgspec.Struct):
    id: str


class User:
    """Asks the same question over a kept connection, which is renewed when it was closed."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self._target = target
        self._plan = plan
        self._request = chat_request(target, plan, session_id=None)
        self._connection: Connection | None = None

    async def open_session(self) -> None:
        """Create the session all further questions belong to. Raises NotPrepared."""
        answer = Answer()
        await self._exchange(http_request(self._target, "/v1/chat/sessions", {}), answer, None)
        self.close()  # idle connections of users still to come would count as the server's memory before
        if answer.fault is not None:
            raise NotPrepared(f"{self._target.base}: no session: {answer.fault}")
        try:
            session = msgspec.json.decode(answer.text, type=_Session)
        except msgspec.DecodeError:
            raise NotPrepared(f"{self._target.base}: no session: the answer has no id") from None
        self._request = chat_request(self._target, self._plan, session.id)

    async def ask(self, tally: Tally) -> None:
        """Ask once, hear the reply out, and count it, whatever became of it."""
        reply = Reply(tally.gaps)
        await self._exchange(self._request, reply, tally)
        tally.count(reply)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    async def _exchange(self, request: bytes, answer: Answer, tally: Tally | None) -> None:
        try:
            connection = await self._connected()
        except OSError as problem:  # a timeout is one, too
            answer.fail(f"connect {_reason(problem)}")
            return
        before = connection.bytes_in
        if tally is None:
            await connection.exchange(request, answer, self._plan.timeout)
            return
        with tally.one_open():
            await connection.exchange(request, answer, self._plan.timeout)
        tally.bytes_in += connection.bytes_in - before

    async def _connected(self) -> Connection:
        if self._connection is not None and self._connection.usable():
            return self._connection
        self.close()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._plan.timeout):
            _, connection = await loop.create_connection(Connection, self._target.host, self._target.port)
        self._connection = connection
        return connection


def chat_request(target: Target, plan: Plan, session_id: str | None) -> bytes:
    """The bytes of a streamed chat completion with usage, paced by the scripted model server."""
    body: dict[str, Any] = {
        "model": target.model,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if session_id is not None:
        body["cozy"] = {"session_id": session_id}
    gap_ms = 0 if plan.pace is None else 1000 / plan.pace
    scripted = {"x-scripted-gap-ms": f"{gap_ms:g}", "x-scripted-tokens": str(plan.tokens)}
    return http_request(target, "/v1/chat/completions", body, scripted)


def http_request(target: Target, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> bytes:
    """A POST of `body` as JSON, ready for the wire."""
    content = msgspec.json.encode(body)
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = {
        "host": f"{host}:{target.port}",
        "content-type": "application/json",
        "content-length": str(len(content)),
        **({"authorization": f"Bearer {target.key}"} if target.key else {}),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {target.prefix}{path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + content


def _reason(problem: OSError) -> str:
    if isinstance(problem, TimeoutError) and problem.errno is None:
        return "timeout"
    return errno.errorcode.get(problem.errno or 0, "failed")
