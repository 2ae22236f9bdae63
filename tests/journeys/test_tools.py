"""Tools: those a client declares go back to it, those of ours run without its knowing."""

from __future__ import annotations

from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.journeys.api import Api, Upstream

MODEL = "cozy/default"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASKED: Any = [{"role": "user", "content": 'Please call get_weather {"city": "Paris"}'}]
TIME = "What time is it in Berlin?"


def result(call_id: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": call_id, "content": "sunny, 21 degrees"}


async def called(client: AsyncOpenAI, streamed: bool, **more: Any) -> Any:
    """The message in which the model calls the client's tool."""
    asked: Any = {"model": MODEL, "messages": ASKED, "tools": [WEATHER], **more}
    if not streamed:
        reply = await client.chat.completions.create(**asked)
        return reply.choices[0]
    async with client.chat.completions.stream(**asked) as stream:
        return (await stream.get_final_completion()).choices[0]


async def answered(client: AsyncOpenAI, streamed: bool, messages: list[Any], **more: Any) -> str:
    """What the model says to these messages."""
    asked: Any = {"model": MODEL, "messages": messages, "tools": [WEATHER], **more}
    if not streamed:
        reply = await client.chat.completions.create(**asked)
        return reply.choices[0].message.content or ""
    async with client.chat.completions.stream(**asked) as stream:
        return (await stream.get_final_completion()).choices[0].message.content or ""


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_of_the_client_comes_back_as_a_whole_call(client: AsyncOpenAI, streamed: bool) -> None:
    choice = await called(client, streamed)
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert call.function.arguments == '{"city":"Paris"}'
    assert not choice.message.content


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_result_of_a_clients_tool_is_answered(client: AsyncOpenAI, streamed: bool) -> None:
    message = (await called(client, streamed)).message
    followed = [*ASKED, message.to_dict(), result(message.tool_calls[0].id)]
    assert await answered(client, streamed, followed) == 'The get_weather says: "sunny, 21 degrees"'


@pytest.mark.parametrize("streamed", [False, True])
async def test_in_a_session_the_result_alone_is_enough(client: AsyncOpenAI, api: Api, streamed: bool) -> None:
    in_session = {"extra_body": {"cozy": {"session_id": await api.session()}}}
    message = (await called(client, streamed, **in_session)).message
    said = await answered(client, streamed, [result(message.tool_calls[0].id)], **in_session)
    assert said == 'The get_weather says: "sunny, 21 degrees"'


async def test_in_a_session_a_client_may_send_the_whole_conversation(client: AsyncOpenAI, api: Api) -> None:
    session_id = await api.session()
    in_session = {"extra_body": {"cozy": {"session_id": session_id}}}
    message = (await called(client, False, **in_session)).message
    followed = [*ASKED, message.to_dict(), result(message.tool_calls[0].id)]
    assert await answered(client, False, followed, **in_session) == 'The get_weather says: "sunny, 21 degrees"'
    assert [message["role"] for message in await api.messages(session_id)] == ["user", "assistant", "tool", "assistant"]


async def test_a_session_goes_on_after_a_call_that_was_never_answered(client: AsyncOpenAI, api: Api) -> None:
    in_session = {"extra_body": {"cozy": {"session_id": await api.session()}}}
    await called(client, False, **in_session)
    said = await answered(client, False, [{"role": "user", "content": "Never mind."}], **in_session)
    assert 'You said: "Never mind."' in said


async def test_several_calls_keep_their_places(client: AsyncOpenAI) -> None:
    messages = [{"role": "user", "content": 'call get_weather {"city":"Oslo"} and call get_weather {"city":"Rome"}'}]
    async with client.chat.completions.stream(model=MODEL, messages=messages, tools=[WEATHER]) as stream:  # type: ignore[arg-type]
        choice = (await stream.get_final_completion()).choices[0]
    calls = choice.message.tool_calls or []
    assert [call.function.arguments for call in calls] == ['{"city":"Oslo"}', '{"city":"Rome"}']
    assert len({call.id for call in calls}) == 2


async def test_a_call_names_itself_in_one_piece_on_the_wire(api: Api) -> None:
    stream = await api.stream(ASKED, tools=[WEATHER])
    [[call]] = [delta["tool_calls"] for delta in stream.deltas if "tool_calls" in delta]
    assert (call["index"], call["type"], call["function"]["name"]) == (0, "function", "get_weather")
    assert stream.finish_reasons == ["tool_calls"]


async def test_our_clock_runs_without_the_client_seeing_a_call(api: Api) -> None:
    stream = await api.stream(TIME)
    assert stream.text.startswith('The clock says: "20')
    assert "Europe/Berlin" in stream.text
    assert stream.finish_reasons == ["stop"]
    assert [delta for delta in stream.deltas if "tool_calls" in delta] == []
    assert {delta["role"] for delta in stream.deltas if "role" in delta} == {"assistant"}


async def test_our_clock_at_work_is_told_beside_the_words(api: Api) -> None:
    stream = await api.stream(TIME)
    news = [chunk["cozy"]["tool"] for chunk in stream.chunks if "tool" in chunk.get("cozy", {})]
    assert [(tool["name"], tool["state"]) for tool in news] == [("clock", "running"), ("clock", "done")]


async def test_our_clock_answers_a_whole_reply_too(client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": TIME}])
    assert (reply.choices[0].message.content or "").startswith('The clock says: "20')
    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].finish_reason == "stop"


async def test_the_model_is_given_the_clocks_answer(api: Api, upstream: Upstream, word: str) -> None:
    answer = await api.chat(f"{TIME} {word}")
    first, second = await upstream.asked(word)
    assert [tool["function"]["name"] for tool in first["tools"]] == ["clock"]
    called, told = second["messages"][-2:]
    assert (called["role"], told["role"]) == ("assistant", "tool")
    assert told["tool_call_id"] == called["tool_calls"][0]["id"]
    assert told["content"] in answer.text


async def test_a_turn_with_a_tool_counts_the_tokens_of_both_rounds(api: Api) -> None:
    whole, streamed = await api.chat(TIME), await api.stream(TIME, stream_options={"include_usage": True})
    one_round = await api.chat(TIME, cozy={"allowed_tools": []})
    assert streamed.chunks[-1]["usage"] == whole.body["usage"]
    assert whole.body["usage"]["prompt_tokens"] > 1.5 * one_round.body["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"timezone": "Moon/Crater"}', "There is no such time zone"),
        ('{"timezone": ["UTC"]}', "There is no such time zone"),
        ('{"timezone": ', "The arguments are not a JSON object."),
        ('"now"', "The arguments are not a JSON object."),
    ],
)
async def test_a_tool_that_fails_is_an_answer_to_the_model(api: Api, arguments: str, told: str) -> None:
    stream = await api.stream("Look at the clock.", headers={"x-scripted-call": f"clock {arguments}"})
    assert told in stream.text
    assert stream.finish_reasons == ["stop"]


async def test_a_model_that_never_stops_calling_is_made_to_answer(api: Api, upstream: Upstream, word: str) -> None:
    """`required` holds in the first round only: the model is asked again with the choice its own."""
    answer = await api.chat(f"Hello {word}.", tool_choice="required", cozy={"allowed_tools": ["clock"]})
    assert answer.text.startswith('The clock says: "20')
    assert [asked["tool_choice"] for asked in await upstream.asked(word)] == ["required", "auto"]


async def test_a_request_may_forbid_our_tools(api: Api, upstream: Upstream, word: str) -> None:
    await api.chat(f"{TIME} {word}", cozy={"allowed_tools": []})
    assert "tools" not in await upstream.asked_once(word)


async def test_the_next_turn_of_a_session_remembers_what_the_clock_said(
    api: Api, upstream: Upstream, word: str
) -> None:
    cozy = {"session_id": await api.session()}
    first = await api.chat(TIME, cozy=cozy)
    await api.chat(f"Thank you. {word}", cozy=cozy)
    [asked] = await upstream.asked(word)
    roles = [message["role"] for message in asked["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert asked["messages"][-2]["content"] == first.text


async def test_ours_and_the_clients_tools_stand_side_by_side(api: Api, upstream: Upstream, word: str) -> None:
    answer = await api.chat(f"{TIME} {word}", tools=[WEATHER])
    assert answer.text.startswith('The clock says: "20')
    first = (await upstream.asked(word))[0]
    assert [tool["function"]["name"] for tool in first["tools"]] == ["clock", "get_weather"]


async def test_a_tool_choice_reaches_the_model(api: Api, upstream: Upstream, word: str) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = await api.chat(f"Choose. {word}", tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    asked = await upstream.asked_once(word)
    assert (asked["tool_choice"], asked["parallel_tool_calls"]) == (choice, False)
    assert answer.body["choices"][0]["finish_reason"] == "tool_calls"
