"""The resources, as the official client sees them."""

import math

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import BaseModel

from tests.ops.local.scripted.conftest import Server, started

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
CLOCK: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {
        "name": "clock",
        "parameters": {"type": "object", "properties": {"timezone": {"type": "string"}}},
    },
}


async def chunks_of(client: AsyncOpenAI, n: int = 1, usage: bool = True, **headers: str) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(
        model="scripted",
        messages=HELLO,
        stream=True,
        n=n,
        stream_options={"include_usage": usage},
        extra_headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    return [chunk async for chunk in stream]


def text_in(chunks: list[ChatCompletionChunk], choice: int = 0) -> str:
    return "".join(one.delta.content or "" for chunk in chunks for one in chunk.choices if one.index == choice)


async def test_a_stream_says_the_role_then_the_text_then_the_finish_then_the_usage(client: AsyncOpenAI) -> None:
    chunks = await chunks_of(client, x_scripted_tokens="4")
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert [bool(delta.content) for delta in deltas] == [False, True, True, True, True, False]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 5 + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


async def test_a_stream_without_include_usage_has_none(client: AsyncOpenAI) -> None:
    assert all("usage" not in chunk.model_fields_set for chunk in await chunks_of(client, usage=False))


async def test_usage_can_be_withheld(client: AsyncOpenAI) -> None:
    chunks = await chunks_of(client, x_scripted_usage="none")
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_streamed_and_whole_replies_are_the_same(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="scripted", messages=HELLO)
    assert whole.choices[0].message.content == text_in(await chunks_of(client))
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


async def test_a_model_that_varies_answers_the_same_messages_with_other_words(client: AsyncOpenAI) -> None:
    headers = {"x-scripted-vary": "1", "x-scripted-tokens": "20"}
    first, second = [
        await client.chat.completions.create(model="scripted", messages=HELLO, extra_headers=headers) for _ in range(2)
    ]
    assert first.choices[0].message.content != second.choices[0].message.content


async def test_the_first_words_say_that_it_is_a_stand_in_and_how_to_connect_a_model(client: AsyncOpenAI) -> None:
    text = text_in(await chunks_of(client))
    assert "stand-in" in text
    assert "OPENAI_API_KEY" in text
    assert "OPENAI_BASE_URL" in text
    assert '"Hello there"' in text


async def test_choices_take_turns_and_differ(client: AsyncOpenAI) -> None:
    chunks = await chunks_of(client, n=2, x_scripted_tokens="3")
    turns = [chunk.choices[0].index for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert turns == [0, 1, 0, 1, 0, 1]
    assert text_in(chunks, 0) != text_in(chunks, 1)


async def test_reasoning_comes_before_the_content(client: AsyncOpenAI) -> None:
    chunks = await chunks_of(client, x_scripted_reasoning="2", x_scripted_tokens="1")
    keys = [key for chunk in chunks[1:-2] for key in chunk.choices[0].delta.model_dump(exclude_unset=True)]
    assert keys == ["reasoning_content", "reasoning_content", "content"]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 2


async def test_a_tool_goes_through_the_whole_loop(client: AsyncOpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What time is it in Tokyo?"}]
    async with client.chat.completions.stream(model="scripted", messages=messages, tools=[CLOCK]) as stream:
        asked = (await stream.get_final_completion()).choices[0]
    assert asked.finish_reason == "tool_calls"
    assert asked.message.tool_calls is not None
    call = asked.message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("clock", '{"timezone":"Asia/Tokyo"}')
    messages.append(
        {
            "role": "assistant",
            "tool_calls": [{"id": call.id, "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
        }
    )
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "12:34"})
    answered = await client.chat.completions.create(model="scripted", messages=messages, tools=[CLOCK])
    assert answered.choices[0].message.content == 'The clock says: "12:34"'


async def test_parallel_calls_have_their_own_index_and_id(client: AsyncOpenAI) -> None:
    header = {"x-scripted-call": 'clock {"timezone": "UTC"};;clock'}
    async with client.chat.completions.stream(
        model="scripted", messages=HELLO, tools=[CLOCK], extra_headers=header
    ) as stream:
        calls = (await stream.get_final_completion()).choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.arguments for call in calls] == ['{"timezone": "UTC"}', "{}"]
    assert len({call.id for call in calls}) == 2


class Weather(BaseModel):
    city: str
    degrees: float
    wind: "Wind | None"


class Wind(BaseModel):
    speed: int
    gusts: list[int]


async def test_a_json_schema_is_obeyed(client: AsyncOpenAI) -> None:
    parsed = await client.chat.completions.parse(model="scripted", messages=HELLO, response_format=Weather)
    weather = parsed.choices[0].message.parsed
    assert weather is not None
    assert weather.wind is not None


async def test_logprobs_carry_every_token(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="scripted", messages=HELLO, logprobs=True, top_logprobs=2, max_tokens=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == answer.choices[0].message.content
    assert [len(token.top_logprobs) for token in logprobs.content] == [2, 2, 2]


async def test_models_are_listed_and_found(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["scripted", "scripted-small"]
    assert (await client.models.retrieve("scripted-small")).id == "scripted-small"


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        await client.chat.completions.create(model="gpt-unknown", messages=HELLO)
    assert refusal.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-unknown")


async def test_embeddings_arrive_in_both_encodings_alike(client: AsyncOpenAI) -> None:
    packed = await client.embeddings.create(model="scripted", input=["the red fox", "a fox that is red"])
    plain = await client.embeddings.create(model="scripted", input="the red fox", encoding_format="float")
    assert len(packed.data[0].embedding) == 256
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert math.isclose(sum(value * value for value in packed.data[1].embedding), 1.0, rel_tol=1e-5)


async def test_an_invalid_request_names_the_field(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.chat.completions.create(model="scripted", messages=[])
    assert refusal.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.chat.completions.create(model="scripted", messages=HELLO, extra_headers={"x-scripted-gpa-ms": "1"})
    assert refusal.value.param == "x-scripted"


async def test_a_record_keeps_the_body_but_not_the_key(server: Server) -> None:
    async with server.client("sk-secret-1234") as client:
        await client.chat.completions.create(model="scripted", messages=HELLO, user="somebody")
    record = await server.last_request()
    assert record["headers"]["authorization"] == "1234"
    assert (record["path"], record["body"]["user"]) == ("/v1/chat/completions", "somebody")
    assert (record["status"], record["finished"], record["closed_early"]) == (200, True, False)
    assert record["tokens_sent"] > 0


async def test_records_can_be_cleared() -> None:
    async with started() as server, server.client() as client, aiohttp.ClientSession() as http:
        await client.models.list()
        assert len(await server.requests()) == 1
        async with http.delete(f"{server.url}/scripted/requests") as cleared:
            assert cleared.status == 204
        assert await server.requests() == []


async def test_a_key_set_in_the_environment_is_required() -> None:
    async with started({"SCRIPTED_API_KEY": "sk-right"}) as server:
        async with server.client("sk-wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
        async with server.client("sk-right") as client:
            assert (await client.models.list()).data


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("GET", "/v1/nothing", 404), ("GET", "/", 404), ("GET", "/readyz", 200)],
)
async def test_other_requests_are_told_what_is_wrong(server: Server, method: str, path: str, status: int) -> None:
    async with aiohttp.ClientSession() as http, http.request(method, server.url + path) as answer:
        assert answer.status == status
        assert ("error" in await answer.json()) == (status != 200)
