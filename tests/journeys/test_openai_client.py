"""OpenAI's own Python client against the running system: whole, streamed, and with every kind of reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import BaseModel

from tests.journeys.api import Api, Upstream
from tests.journeys.stack import KEY, Stack

MODEL = "cozy/default"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def says(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def scripted(**controls: object) -> dict[str, str]:
    """Controls of the model server, as headers."""
    return {f"x-scripted-{name.replace('_', '-')}": str(value) for name, value in controls.items()}


async def every(stream: AsyncIterator[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in stream]


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def extra(delta: Any, name: str) -> str:
    """A field that the client has no type for."""
    return (delta.model_extra or {}).get(name) or ""


async def test_a_whole_reply(client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=MODEL, messages=says("Good morning."))
    assert reply.choices[0].finish_reason == "stop"
    assert 'You said: "Good morning."' in (reply.choices[0].message.content or "")
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


async def test_the_client_without_asyncio(stack: Stack) -> None:
    def talk() -> str:
        with OpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=30) as client:
            stream = client.chat.completions.create(model=MODEL, messages=says("Good evening."), stream=True)
            return text_of(list(stream))

    assert 'You said: "Good evening."' in await asyncio.to_thread(talk)


async def test_the_helpers_final_completion_is_what_was_streamed_and_stored(client: AsyncOpenAI, api: Api) -> None:
    session_id = await api.session()
    async with client.chat.completions.stream(
        model=MODEL,
        messages=says("Tell me something long."),
        extra_headers=scripted(tokens=60, gap_ms=5),
        extra_body={"cozy": {"session_id": session_id}},
    ) as stream:
        heard = [event.delta async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "".join(heard)
    assert final.choices[0].finish_reason == "stop"
    assert await api.stored_reply(session_id) == "".join(heard)


async def test_the_helper_gives_the_usage_it_asked_for(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model=MODEL,
        messages=says("Count."),
        stream_options={"include_usage": True},
        extra_headers=scripted(tokens=7),
    ) as stream:
        final = await stream.get_final_completion()
    assert final.usage is not None
    assert final.usage.completion_tokens == 7


async def test_a_stream_gives_usage_only_to_who_asks(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=says("Count not."), stream=True)
    assert [chunk.usage for chunk in await every(stream) if chunk.usage] == []


async def test_streamed_words_arrive_as_they_are_said(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=says("Slowly."), stream=True, extra_headers=scripted(tokens=4, gap_ms=300)
    )
    clock = asyncio.get_running_loop().time
    arrivals = [clock() async for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert len(arrivals) == 4
    assert arrivals[-1] - arrivals[0] > 0.8


async def test_several_choices_at_once(client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=MODEL, messages=says("Twice."), n=2)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert [choice.finish_reason for choice in reply.choices] == ["stop", "stop"]
    assert len({choice.message.content for choice in reply.choices}) == 2


async def test_several_choices_streamed_are_those_of_the_whole_reply(client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=MODEL, messages=says("Twice."), n=2)
    stream = await client.chat.completions.create(model=MODEL, messages=says("Twice."), n=2, stream=True)
    chunks = await every(stream)
    assert [text_of(chunks, index) for index in (0, 1)] == [choice.message.content for choice in reply.choices]
    roles = [choice.index for chunk in chunks for choice in chunk.choices if choice.delta.role]
    assert roles == [0, 1]


async def test_a_reply_that_follows_a_schema(client: AsyncOpenAI) -> None:
    class Person(BaseModel):
        name: str
        age: int

    reply = await client.chat.completions.parse(model=MODEL, messages=says("A person."), response_format=Person)
    assert isinstance(reply.choices[0].message.parsed, Person)


async def test_images_reach_the_model_as_they_were_sent(client: AsyncOpenAI, upstream: Upstream, word: str) -> None:
    parts: Any = [
        {"type": "text", "text": f"What is this {word}?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    reply = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert "I see 1 image." in (reply.choices[0].message.content or "")
    assert (await upstream.asked_once(word))["messages"][-1]["content"] == parts


async def test_reasoning_is_streamed_apart_from_the_words(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=says("Think."), stream=True, extra_headers=scripted(reasoning=5, tokens=3)
    )
    deltas = [choice.delta for chunk in await every(stream) for choice in chunk.choices]
    thinking = [place for place, delta in enumerate(deltas) if extra(delta, "reasoning_content")]
    talking = [place for place, delta in enumerate(deltas) if delta.content]
    assert thinking
    assert max(thinking) < min(talking)


async def test_reasoning_is_the_same_whole_and_streamed(client: AsyncOpenAI) -> None:
    asked = {"model": MODEL, "messages": says("Think twice."), "extra_headers": scripted(reasoning=5, tokens=3)}
    reply = await client.chat.completions.create(**asked)  # type: ignore[call-overload]
    stream = await client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
    deltas = [choice.delta for chunk in await every(stream) for choice in chunk.choices]
    streamed = "".join(extra(delta, "reasoning_content") for delta in deltas)
    assert extra(reply.choices[0].message, "reasoning_content") == streamed != ""


@pytest.mark.parametrize("streamed", [False, True])
async def test_log_probabilities_spell_the_reply(client: AsyncOpenAI, streamed: bool) -> None:
    asked: Any = {"model": MODEL, "messages": says("Sure?"), "logprobs": True, "top_logprobs": 2}
    if streamed:
        chunks = await every(await client.chat.completions.create(**asked, stream=True))
        found = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
        text = text_of(chunks)
    else:
        reply = await client.chat.completions.create(**asked)
        found, text = [reply.choices[0].logprobs], reply.choices[0].message.content
    tokens = [token for logprobs in found for token in logprobs.content or ()]
    assert "".join(token.token for token in tokens) == text
    assert {len(token.top_logprobs) for token in tokens} == {2}


async def test_a_stop_string_ends_the_reply_before_it(client: AsyncOpenAI) -> None:
    asked = says("Say apples and oranges.")
    whole = await client.chat.completions.create(model=MODEL, messages=asked)
    cut = await client.chat.completions.create(model=MODEL, messages=asked, stop=["oranges", "bananas"])
    assert cut.choices[0].message.content == (whole.choices[0].message.content or "").partition("oranges")[0]
    assert cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_on_the_tokens_ends_the_reply_with_length(client: AsyncOpenAI, name: str) -> None:
    asked: Any = {"model": MODEL, "messages": says("Be brief."), name: 5}
    reply = await client.chat.completions.create(**asked, extra_headers=scripted(tokens=50))
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 5


async def test_the_clients_errors_are_of_the_kind_it_expects(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="no-such-model", messages=says("Hello?"))
    assert (missing.value.code, missing.value.param) == ("RESOURCE_MODEL_NOT_FOUND", "model")
    assert missing.value.type == "invalid_request_error"


async def test_the_client_raises_on_a_stream_that_fails(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=says("Break."), stream=True, extra_headers=scripted(fail="cut")
    )
    with pytest.raises(openai.APIError) as broken:
        await every(stream)
    assert broken.value.code == "ENGINE_FAILED"


async def test_the_client_reads_over_heartbeats(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=says("Wait."), stream=True, extra_headers=scripted(tokens=2, gap_ms=1400)
    )
    chunks = await every(stream)
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) == 2


async def test_the_client_that_tries_again_gets_its_reply(stack: Stack) -> None:
    """The model server fails for good at first; the client's own second attempt is another turn."""
    asked = scripted(fail="500", fail_times=4, fail_key="tries-again")
    async with AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=2, timeout=30) as client:
        reply = await client.chat.completions.create(model=MODEL, messages=says("Again?"), extra_headers=asked)
    assert reply.choices[0].finish_reason == "stop"
