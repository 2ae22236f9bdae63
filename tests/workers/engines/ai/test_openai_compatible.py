"""One provider over real HTTP: what it is asked, what it says, and how it fails."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import aclosing

import msgspec
import pytest

from schemas.faults import EngineFailed, EngineOverloaded, EngineRefused, EngineTimeout, ModelNotFound
from schemas.openai import FunctionSpec, Tool, UserMessage
from tests.workers.engines.ai.conftest import MakeEngine, Says, asking, closed_early, last_request, seen, words_of
from workers.engines.ai.port import ModelCall

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
HELLO = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


async def test_every_word_arrives_in_order_and_the_usage_with_them(make_engine: MakeEngine) -> None:
    answer = await (await make_engine()).chat(asking(tokens=50))
    assert answer.text.endswith("night49")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 50


async def test_characters_torn_between_two_events_are_whole(make_engine: MakeEngine) -> None:
    engine = await make_engine()
    call = asking("what did I say before? 🦊 né")
    torn = msgspec.structs.replace(call, headers={"x-scripted-split-utf8": "1"})
    assert (await engine.chat(torn)).text == (await engine.chat(call)).text


async def test_a_stream_goes_on_while_the_server_thinks(make_engine: MakeEngine) -> None:
    reads: list[int] = []
    async with aclosing((await make_engine()).chat_stream(asking(tokens=10, gap_ms=20))) as stream:
        async for chunks in stream:
            reads.append(len(chunks))
    assert len(reads) >= 5


async def test_tools_choices_and_reasoning_come_through(make_engine: MakeEngine) -> None:
    engine = await make_engine()
    call = ModelCall(
        model="scripted",
        messages=[UserMessage("what time is it?")],
        tools=[Tool(FunctionSpec(name="clock", parameters={"type": "object", "properties": {}}))],
        n=2,
    )
    answer = await engine.chat(call)
    assert [choice.tool_calls[0].function.name for choice in answer.choices] == ["clock", "clock"]
    assert [choice.finish_reason for choice in answer.choices] == ["tool_calls", "tool_calls"]
    assert (await engine.chat(asking(reasoning=3))).choices[0].reasoning


async def test_a_closed_stream_closes_the_connection_at_once(make_engine: MakeEngine, scripted: str) -> None:
    stream = (await make_engine()).chat_stream(asking("close me early", tokens=1000, gap_ms=20))
    await anext(stream)
    await stream.aclose()
    await closed_early(scripted, "close me early", within=1)


async def test_a_cancelled_consumer_closes_the_connection_at_once(make_engine: MakeEngine, scripted: str) -> None:
    task = asyncio.create_task(words_of(await make_engine(), asking("cancel me", tokens=2, ttft_ms=10_000)))
    await seen(scripted, "cancel me", lambda record: True, within=5)
    task.cancel()
    await closed_early(scripted, "cancel me", within=1)


async def test_a_connection_whose_response_ends_late_is_used_again(
    make_engine: MakeEngine,
) -> None:
    callers: set[object] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.add(writer.get_extra_info("peername"))
        for _ in range(3):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r")[0]))
            body = HELLO + FINISH + DONE
            writer.write(OK + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))
            await asyncio.sleep(0.02)
            writer.write(b"0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        engine = await make_engine(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        for _ in range(3):
            assert await words_of(engine, asking()) == ["hello"]
    assert len(callers) == 1


async def test_controls_go_to_the_scripted_server_only(make_engine: MakeEngine, scripted: str) -> None:
    words = await words_of(await make_engine(name="other"), asking("to another provider", tokens=3))
    assert len(words) > 3
    headers = (await last_request(scripted, "to another provider"))["headers"]
    assert not [name for name in headers if name.startswith("x-scripted")]


async def test_no_other_header_slips_through_with_the_controls(make_engine: MakeEngine, scripted: str) -> None:
    call = asking("with a stray header", tokens=1)
    call = msgspec.structs.replace(call, headers={**call.headers, "authorization": "stray"})
    await words_of(await make_engine(api_key="the-right-key"), call)
    headers = (await last_request(scripted, "with a stray header"))["headers"]
    assert "the-right-key".endswith(headers["authorization"])


async def test_a_server_without_a_key_is_sent_none(make_engine: MakeEngine, scripted: str) -> None:
    await words_of(await make_engine(), asking("without a key", tokens=1))
    assert "authorization" not in (await last_request(scripted, "without a key"))["headers"]


async def test_auto_is_the_first_listed_model_that_is_allowed(make_engine: MakeEngine, scripted: str) -> None:
    await words_of(await make_engine(model="auto", models=("*-small",)), asking("any model", model="auto", tokens=1))
    assert (await last_request(scripted, "any model"))["body"]["model"] == "scripted-small"


async def test_auto_without_an_allowed_model_is_not_found(make_engine: MakeEngine) -> None:
    with pytest.raises(ModelNotFound):
        await words_of(await make_engine(model="auto", models=("gpt-*",)), asking(model="auto"))


async def test_health_tells_that_the_server_answers(make_engine: MakeEngine) -> None:
    assert (await (await make_engine()).health_check())["models"] >= 1


async def test_health_of_a_server_that_is_away_is_a_fault(make_engine: MakeEngine, unused_url: str) -> None:
    with pytest.raises(EngineFailed):
        await (await make_engine(unused_url)).health_check()


@pytest.mark.parametrize(
    ("fail", "kind"), [("400", EngineRefused), ("401", EngineRefused), ("429", EngineOverloaded), ("500", EngineFailed)]
)
async def test_an_error_status_is_its_fault(make_engine: MakeEngine, fail: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await words_of(await make_engine(retries=0), asking(fail=fail))


async def test_an_unknown_model_is_not_found(make_engine: MakeEngine) -> None:
    with pytest.raises(ModelNotFound):
        await words_of(await make_engine(), asking(model="no-such"))


async def test_a_server_that_is_away_is_a_failure(make_engine: MakeEngine, unused_url: str) -> None:
    with pytest.raises(EngineFailed, match="connection"):
        await words_of(await make_engine(unused_url, retries=0), asking())


@pytest.mark.parametrize("fail", ["cut", "malformed"])
async def test_what_was_said_before_a_failure_is_passed_on(make_engine: MakeEngine, fail: str) -> None:
    heard: list[str] = []
    engine, call = await make_engine(), asking(fail=fail, fail_after=5, tokens=9)

    async def listen() -> None:
        async with aclosing(engine.chat_stream(call)) as stream:
            async for chunks in stream:
                heard.extend(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)

    with pytest.raises(EngineFailed):
        await listen()
    assert len(list(filter(None, heard))) == 5


async def test_a_stream_that_ends_without_a_finish_broke_off(make_engine: MakeEngine, says: Says) -> None:
    url = await says(OK + b"connection: close\r\n\r\n" + HELLO)
    with pytest.raises(EngineFailed, match="broke off"):
        await words_of(await make_engine(url), asking())


async def test_a_finish_without_done_is_an_end(make_engine: MakeEngine, says: Says) -> None:
    url = await says(OK + b"connection: close\r\n\r\n" + HELLO + FINISH)
    assert await words_of(await make_engine(url), asking()) == ["hello"]


async def test_an_error_in_the_stream_is_its_fault(make_engine: MakeEngine, says: Says) -> None:
    error = b'data: {"error":{"message":"too long","code":"context_length_exceeded"}}\n\n'
    url = await says(OK + b"connection: close\r\n\r\n" + HELLO + error)
    with pytest.raises(EngineRefused):
        await words_of(await make_engine(url), asking())


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", b""])
async def test_what_is_not_http_is_a_failure(make_engine: MakeEngine, says: Says, answer: bytes) -> None:
    with pytest.raises(EngineFailed):
        await words_of(await make_engine(await says(answer), retries=0), asking())


async def test_a_server_that_compresses_although_told_not_to_is_understood(make_engine: MakeEngine, says: Says) -> None:
    body = gzip.compress(HELLO + FINISH + DONE)
    url = await says(OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body), body)
    assert await words_of(await make_engine(url), asking()) == ["hello"]


async def test_a_server_that_cannot_be_connected_to_in_time_is_a_timeout(
    make_engine: MakeEngine, deaf_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engines.ai.openai_compatible.CONNECT_TIMEOUT", 0.1)
    with pytest.raises(EngineTimeout, match="reached"):
        await words_of(await make_engine(deaf_url, retries=0), asking())


async def test_ten_thousand_messages_are_one_request(make_engine: MakeEngine, scripted: str) -> None:
    messages = [UserMessage(f"message {number}") for number in range(10_000)]
    call = ModelCall(model="scripted", messages=messages, headers={"x-scripted-tokens": "1"})
    assert len(await words_of(await make_engine(), call)) == 1
