"""OpenAI, and every server that speaks its chat completions: Ollama, LM Studio, vLLM, the scripted model server.

The openai SDK makes the client: base URL, credentials, headers and the aiohttp transport. Requests are sent on that
client's HTTP side and streams are read as bytes: for the same bytes on the wire, `client.post` takes 300 µs more CPU
a call, and the SDK's chunk objects five times as much a token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import msgspec
from openai import AsyncOpenAI, DefaultAioHttpClient

from ops.runtime.models import AUTO, is_openai
from ops.runtime.settings import Provider
from schemas.faults import ModelNotFound
from workers.engines.ai import errors, request
from workers.engines.ai.chunks import Chunk
from workers.engines.ai.port import API_VERSION, AIEngine, ModelCall
from workers.engines.ai.wire import ChunkReader

CONNECT_TIMEOUT = 5.0
MODELS_TTL = 300.0
"""Seconds for which `auto` stays the model it was."""
_DRAIN = 0.1
"""Seconds the server has, after its last word, to end the response so that the connection can be used again."""
_KEEP_ALIVE = 30.0
_SCRIPTED = "scripted"
_MARKING = ("mistral.ai", "deepseek.com")
"""Whose servers want the message marked that an answer goes on from. DeepSeek's does it below `/beta` only."""
_BROKEN = (httpx2.HTTPError, httpx2.StreamError, aiohttp.ClientError, OSError)
"""What the transport raises: httpx2's errors, and aiohttp's where it has no httpx2 error for one."""


class _Model(msgspec.Struct, frozen=True):
    id: str


class _ModelList(msgspec.Struct, frozen=True):
    data: list[_Model] = []


class OpenAICompatible(AIEngine):
    """One provider, with the connections to it. Serves every model of the provider."""

    api_version = API_VERSION

    def __init__(self, name: str, settings: Provider) -> None:
        self._name = name
        self._settings = settings
        self._openai_itself = is_openai(settings)
        host = urlsplit(settings.base_url).hostname or ""
        self._marks_prefix = host.endswith(_MARKING)
        self._http: httpx2.AsyncClient | None = None
        self._headers: list[tuple[str, str]] = []
        self._chat_url = self._models_url = httpx2.URL()
        self._auto: tuple[str, float] | None = None

    async def initialize(self) -> None:
        """Make the client; it connects when it is first used."""
        if self._http is not None:
            return
        # Without a read limit: the guard times the stream, and aiohttp would set a timer for every read.
        self._http = DefaultAioHttpClient(
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT),
            limits=httpx2.Limits(max_connections=self._settings.max_connections, keepalive_expiry=_KEEP_ALIVE),
        )
        key = self._settings.api_key
        # The SDK makes no client without a key; a server without keys is told none.
        client = AsyncOpenAI(api_key=key or "none", base_url=self._settings.base_url, http_client=self._http)
        headers = {**client.default_headers, **(client.auth_headers if key else {}), "Accept-Encoding": "identity"}
        self._headers = [(name, value) for name, value in headers.items() if isinstance(value, str)]
        self._chat_url, self._models_url = client.base_url.join("chat/completions"), client.base_url.join("models")

    async def close(self) -> None:
        """Close all connections; replies under way end with EngineFailed."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def health_check(self) -> dict[str, Any]:
        """Whether the server answers and takes the key: asks for its models."""
        started = time.monotonic()
        models = await self._models()
        return {"models": len(models), "latency_ms": round((time.monotonic() - started) * 1000, 1)}

    async def chat_stream(self, call: ModelCall) -> AsyncGenerator[list[Chunk], None]:
        """One attempt at `POST /chat/completions`, streamed."""
        if call.model == AUTO:
            call = msgspec.structs.replace(call, model=await self._first_model())
        body = request.body(call, openai_itself=self._openai_itself, marks_prefix=self._marks_prefix)
        reader = ChunkReader(self._name)
        with self._connection_errors():
            response = await self._send("POST", self._chat_url, body, self._scripted_headers(call))
            try:
                pieces = _pieces(response)
                async for data in pieces:
                    chunks = reader.feed(data)
                    if chunks:
                        yield chunks
                    if reader.fault is not None:
                        raise reader.fault
                    if reader.done:
                        break
                if not reader.complete(call.n or 1):
                    raise errors.broke_off(self._name)
                await _drain(pieces)
            finally:
                await response.aclose()

    async def _first_model(self) -> str:
        now = time.monotonic()
        if self._auto is None or now > self._auto[1]:
            allowed = (model for model in await self._models() if self._allows(model))
            first = next(allowed, None)
            if first is None:
                raise ModelNotFound(
                    "The model server lists no model that may be used.", details={"provider": self._name}
                )
            self._auto = first, now + MODELS_TTL
        return self._auto[0]

    def _allows(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self._settings.models)

    async def _models(self) -> list[str]:
        with self._connection_errors():
            response = await self._send("GET", self._models_url)
            try:
                listed = msgspec.json.decode(await response.aread(), type=_ModelList)
            except errors.UNREADABLE:
                raise errors.unreadable(self._name) from None
            finally:
                await response.aclose()
        return [model.id for model in listed.data]

    async def _send(
        self, method: str, url: httpx2.URL, body: bytes | None = None, more: tuple[tuple[str, str], ...] = ()
    ) -> httpx2.Response:
        """The response, once its headers say success; its body is still to be read. Raises a Fault otherwise."""
        assert self._http is not None, "initialize() comes first"
        asked = httpx2.Request(method, url, content=body, headers=[*self._headers, *more])
        response = await self._http.send(asked, stream=True)
        if response.is_success:
            return response
        try:
            raise errors.from_response(self._name, response.status_code, response.headers, await response.aread())
        finally:
            await response.aclose()

    def _scripted_headers(self, call: ModelCall) -> tuple[tuple[str, str], ...]:
        """The scripted server's controls, which no other server is told."""
        if self._name != _SCRIPTED or not call.headers:
            return ()
        return tuple((name, value) for name, value in call.headers.items() if name.lower().startswith("x-scripted-"))

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            raise errors.from_exception(self._name, error) from error


def _pieces(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body as it arrives; decompressed, at more cost a read, where a server compresses although told not to."""
    return response.aiter_bytes() if "content-encoding" in response.headers else response.aiter_raw()


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read the response's end, which a server may send a moment after its last word. A reply does not wait for it."""
    try:
        async with asyncio.timeout(_DRAIN):
            async for _ in pieces:
                pass
    except _BROKEN:
        return
