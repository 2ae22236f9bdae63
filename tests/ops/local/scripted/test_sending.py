"""How replies leave: paced, failing on request, and noticing when the reader leaves."""

import asyncio
import json
import time

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from tests.ops.local.scripted.conftest import Server, started
from tests.ops.local.scripted.test_app import HELLO, chunks_of, text_in

Body = dict[str, object]
STREAM: Body = {"model": "scripted", "stream": True, "messages": HELLO}


async def read_until_it_ends(server: Server, headers: dict[str, str]) -> tuple[bytes, Exception | None]:
    """The bytes of a streamed reply, and what ended it if not its end."""
    got = b""
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{server.url}/v1/chat/completions", json=STREAM, headers=headers) as answer,
    ):
        try:
            async for data in answer.content.iter_any():
                got += data
        except aiohttp.ClientPayloadError as error:
            return got, error
    return got, None


async def test_tokens_keep_their_pace(client: AsyncOpenAI) -> None:
    started_at = time.monotonic()
    await chunks_of(client, x_scripted_tokens="11", x_scripted_gap_ms="20")
    assert 0.195 <= time.monotonic() - started_at < 2


async def test_a_gap_below_a_millisecond_keeps_its_rate(client: AsyncOpenAI) -> None:
    started_at = time.monotonic()
    await chunks_of(client, x_scripted_tokens="501", x_scripted_gap_ms="0.4")
    assert 0.195 <= time.monotonic() - started_at < 2


async def test_the_first_token_can_be_late_while_the_role_is_not(client: AsyncOpenAI) -> None:
    started_at = time.monotonic()
    stream = await client.chat.completions.create(
        model="scripted", messages=HELLO, stream=True, extra_headers={"x-scripted-ttft-ms": "400"}
    )
    times = [time.monotonic() - started_at async for _ in stream]
    assert times[1] - times[0] > 0.2
    assert times[1] >= 0.395


async def test_a_whole_answer_takes_as_long_as_its_tokens(client: AsyncOpenAI) -> None:
    started_at = time.monotonic()
    await client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "hi [[ttft=50 gap=10 tokens=11]]"}]
    )
    assert 0.145 <= time.monotonic() - started_at < 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_a_status_fails_the_request(client: AsyncOpenAI, status: int, error: type[openai.APIStatusError]) -> None:
    with pytest.raises(error) as failure:
        await chunks_of(client, x_scripted_fail=str(status))
    assert failure.value.response.headers.get("retry-after") == ("1" if status in (429, 503) else None)


async def test_only_the_first_requests_fail_where_asked(server: Server) -> None:
    wish = {"x-scripted-fail": "503", "x-scripted-fail-times": "2", "x-scripted-fail-key": "twice"}
    client = server.client().with_options(max_retries=2)
    wish["x-scripted-retry-after-ms"] = "1"
    answer = await client.chat.completions.create(model="scripted", messages=HELLO, extra_headers=wish)
    assert answer.choices[0].finish_reason == "stop"
    assert [record["status"] for record in await server.requests(3)] == [503, 503, 200]
    await client.close()


async def test_a_cut_closes_the_connection_after_its_tokens(server: Server) -> None:
    got, error = await read_until_it_ends(server, {"x-scripted-fail": "cut", "x-scripted-fail-after": "5"})
    assert got.count(b'"content":') == 1 + 5
    assert b'finish_reason":"' not in got
    assert isinstance(error, aiohttp.ClientPayloadError)
    record = await server.last_request()
    assert (record["tokens_sent"], record["closed_early"]) == (5, False)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_after_no_token_sends_not_even_headers(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(
            model="scripted",
            messages=HELLO,
            stream=stream,
            extra_headers={"x-scripted-fail": "cut", "x-scripted-fail-after": "0"},
        )


async def test_a_malformed_event_stands_between_good_ones(server: Server) -> None:
    got, error = await read_until_it_ends(server, {"x-scripted-fail": "malformed", "x-scripted-tokens": "5"})
    events = [event.removeprefix(b"data: ") for event in got.split(b"\n\n") if event]
    good = []
    for event in events[:-1]:
        try:
            json.loads(event)
            good.append(True)
        except ValueError:
            good.append(False)
    assert good == [True] * 4 + [False] + [True] * 3
    assert events[-1] == b"[DONE]"
    assert error is None


@pytest.mark.parametrize(("fail", "error"), [("cut", openai.APIConnectionError), ("malformed", ValueError)])
async def test_a_whole_answer_can_be_broken(client: AsyncOpenAI, fail: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await client.chat.completions.create(model="scripted", messages=HELLO, extra_headers={"x-scripted-fail": fail})


@pytest.mark.parametrize(
    "controls",
    [
        {"x-scripted-fail": "hang", "x-scripted-fail-after": "2"},
        {"x-scripted-tokens": "1000", "x-scripted-gap-ms": "20"},
        {"x-scripted-ttft-ms": "60000"},
    ],
)
async def test_a_reader_that_leaves_is_noticed_at_once(controls: dict[str, str]) -> None:
    async with started() as server:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{server.url}/v1/chat/completions", json=STREAM, headers=controls) as answer,
        ):
            await answer.content.readany()
            assert (await server.last_request())["closed_early"] is False
            answer.close()
        async with asyncio.timeout(1):
            while not (record := await server.last_request())["closed_early"]:
                pass
        assert record["finished"] is False
        assert record["tokens_sent"] < 10


@pytest.mark.parametrize("stream", [True, False])
async def test_a_hang_sends_nothing_more_and_stays_open(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.2).chat.completions.create(
            model="scripted",
            messages=HELLO,
            stream=stream,
            extra_headers={"x-scripted-fail": "hang", "x-scripted-fail-after": "0"},
        )


async def test_a_slow_reader_gets_everything(server: Server) -> None:
    headers = {"x-scripted-tokens": "100000"}
    async with (
        aiohttp.ClientSession(read_bufsize=1024) as http,
        http.post(f"{server.url}/v1/chat/completions", json=STREAM, headers=headers) as answer,
    ):
        await answer.content.readany()
        held_back = (await server.last_request())["tokens_sent"]
        rest = await answer.content.read()
    assert held_back < 100_000
    assert rest.endswith(b"data: [DONE]\n\n")
    assert (await server.last_request())["tokens_sent"] == 100_000


async def test_a_character_can_arrive_in_two_parts(server: Server) -> None:
    body = {**STREAM, "messages": [{"role": "user", "content": "🌲é雪"}]}
    parts = []
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{server.url}/v1/chat/completions", json=body, headers={"x-scripted-split-utf8": "1"}) as answer,
    ):
        async for data, _ in answer.content.iter_chunks():
            parts.append(data)
    assert any(part[-1] >= 0xC0 for part in parts)
    assert "🌲é雪" in b"".join(parts).decode()


async def test_many_streams_do_not_mix(client: AsyncOpenAI) -> None:
    async def one(number: int) -> None:
        stream = await client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": f"stream {number} [[tokens=20 gap=5]]"}],
            stream=True,
        )
        streamed = text_in([chunk async for chunk in stream])
        whole = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": f"stream {number} [[tokens=20]]"}]
        )
        assert streamed == whole.choices[0].message.content

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(one(number))
