"""The stock client of the drain drill: it tries as often as OpenAI's SDK, and what that would raise is an error."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from ops.drills import stock
from ops.drills.clients import Chat
from ops.drills.stock import ClientError, StockClient

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
CHUNK = 'id: {id}\ndata: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}],"cozy":{{"turn_id":"t"}}}}\n\n'
GOES_ON = 'data: {"error":{"code":"ENGINE_OVERLOADED","message":"Read it from GET /v1/turns/t/stream."}}\n\n'
BROKE = 'data: {"error":{"code":"ENGINE_FAILED","message":"It broke."}}\n\n'
DONE = "data: [DONE]\n\n"


class Gateway:
    """Answers with what the test lined up, and notes what it was asked."""

    def __init__(self) -> None:
        self.answers: list[web.StreamResponse | str | None] = []
        self.asked: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        said = self.answers.pop(0)
        if said is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return said if isinstance(said, web.StreamResponse) else web.Response(text=said)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def client(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StockClient]:
    monkeypatch.setattr(stock, "FIRST_PAUSE", 0.01)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", gateway.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as http:
        yield StockClient(http, f"http://{host}:{port}", random.Random(1))
    await runner.cleanup()


def refusal(status: int, **headers: str) -> web.Response:
    return web.json_response({"error": {"code": "X", "message": "m"}}, status=status, headers=headers)


def a_chat() -> Chat:
    return Chat(number=1, session_id="s", tokens=3, gap_ms=0)


async def test_refusals_are_tried_twice_more_and_counted(gateway: Gateway, client: StockClient) -> None:
    gateway.answers = [refusal(503), None, "{}"]
    assert await client.ask("POST", "/v1/chat/sessions", {}) == {}
    assert client.retried["503 X"] == 1
    assert client.retried.total() == 2
    assert [request.headers["x-stainless-retry-count"] for request in gateway.asked] == ["0", "1", "2"]


async def test_the_third_refusal_is_an_error(gateway: Gateway, client: StockClient) -> None:
    gateway.answers = [refusal(503) for _ in range(3)]
    with pytest.raises(ClientError, match="GET /v1/models: 503 X"):
        await client.ask("GET", "/v1/models?limit=1")


@pytest.mark.parametrize("refused", [refusal(400), refusal(503, **{"x-should-retry": "false"})])
async def test_what_does_not_help_to_repeat_is_not_repeated(
    gateway: Gateway, client: StockClient, refused: web.Response
) -> None:
    gateway.answers = [refused]
    with pytest.raises(ClientError):
        await client.ask("GET", "/v1/models")
    assert len(gateway.asked) == 1


async def test_a_stream_is_heard_to_its_end(gateway: Gateway, client: StockClient) -> None:
    gateway.answers = [CHUNK.format(id=1, text="a") + CHUNK.format(id=2, text="b") + DONE]
    chat = a_chat()
    await client.streamed(chat)
    assert (chat.text, chat.state, chat.turn_id) == ("ab", "completed", "t")


async def test_a_stream_that_is_told_where_it_goes_on_is_read_on_there(gateway: Gateway, client: StockClient) -> None:
    gateway.answers = [
        CHUNK.format(id=1, text="a") + GOES_ON,
        CHUNK.format(id=1, text="a") + CHUNK.format(id=2, text="b"),
        CHUNK.format(id=3, text="c") + DONE,
    ]
    chat = a_chat()
    await client.streamed(chat)
    assert (chat.text, chat.state) == ("abc", "completed")
    assert [request.headers.get("last-event-id") for request in gateway.asked] == [None, "1", "2"]
    assert client.resumed == {"told where the reply goes on": 1, "a resumable stream moved": 1}


@pytest.mark.parametrize("end", ["", BROKE], ids=["no end", "an error"])
async def test_a_stream_that_breaks_is_an_error(gateway: Gateway, client: StockClient, end: str) -> None:
    gateway.answers = [CHUNK.format(id=1, text="a") + end]
    with pytest.raises(ClientError, match="turn t"):
        await client.streamed(a_chat())


async def test_a_gateway_that_is_not_there_is_an_error(client: StockClient) -> None:
    client._url = "http://127.0.0.1:1"
    with pytest.raises(ClientError, match="ClientConnectorError"):
        await client.ask("GET", "/v1/models")
    assert client.retried.total() == 2
