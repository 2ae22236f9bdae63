"""Every parameter of a chat request reaches the model as it was given, and a raw model gets nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.journeys.api import Api, Upstream

RAW = "scripted"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "reply", "schema": {"type": "object", "properties": {}}}}
OURS = {"model", "messages", "stream", "stream_options"}
"""What every request to a model has."""


async def asked_with(api: Api, upstream: Upstream, word: str, **more: Any) -> dict[str, Any]:
    """What the model server was asked when a raw model was asked with these parameters."""
    answer = await api.chat(f"Hello {word}.", model=RAW, **more)
    assert answer.status == 200, answer.body
    return await upstream.asked_once(word)


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0.25},
        {"top_p": 0.5},
        {"stop": "END"},
        {"stop": ["END", "STOP"]},
        {"seed": 7},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"response_format": SCHEMA},
        {"reasoning_effort": "low"},
        {"logprobs": True, "top_logprobs": 3},
        {"presence_penalty": 0.5, "frequency_penalty": -0.5},
        {"logit_bias": {"50256": -100}},
        {"user": "somebody"},
        {"metadata": {"purpose": "test"}},
        {"store": False},
        {"max_tokens": 9},
    ],
    ids=lambda given: "-".join(given),
)
async def test_a_parameter_is_passed_on(api: Api, upstream: Upstream, word: str, given: dict[str, Any]) -> None:
    asked = await asked_with(api, upstream, word, **given)
    assert {name: value for name, value in asked.items() if name not in OURS} == given


async def test_of_both_limits_on_the_tokens_the_newer_wins(api: Api, upstream: Upstream, word: str) -> None:
    asked = await asked_with(api, upstream, word, max_tokens=3, max_completion_tokens=8)
    assert asked["max_tokens"] == 8


async def test_unknown_keys_are_ignored(api: Api, upstream: Upstream, word: str) -> None:
    asked = await asked_with(api, upstream, word, an_invention=1, verbosity={"level": 3})
    assert set(asked) == OURS


async def test_a_raw_model_sees_exactly_the_clients_messages(api: Api, upstream: Upstream, word: str) -> None:
    messages = [
        {"role": "system", "content": "Be a pirate."},
        {"role": "user", "content": [{"type": "text", "text": f"Ahoy {word}"}], "name": "jim"},
        {"role": "assistant", "content": "Arr."},
        {"role": "user", "content": "And now?"},
    ]
    answer = await api.chat(messages, model=RAW)
    asked = await upstream.asked_once(word)
    assert asked["messages"] == messages
    assert set(asked) == OURS
    assert (asked["model"], answer.body["model"]) == (RAW, RAW)


async def test_a_raw_model_has_no_personality(api: Api) -> None:
    answer = await api.chat("Hello.", model=RAW)
    assert answer.body["cozy"]["personality_id"] is None


async def test_a_personalitys_prompt_comes_before_the_clients(api: Api, upstream: Upstream, word: str) -> None:
    await api.chat([{"role": "system", "content": "Rhyme."}, {"role": "user", "content": word}])
    first, second, third = (await upstream.asked_once(word))["messages"]
    assert first["role"] == "system"
    assert first["content"].startswith("You are Cozy")
    assert (second["content"], third["content"]) == ("Rhyme.", word)


async def test_a_developers_message_reaches_a_server_that_knows_only_systems(
    api: Api, upstream: Upstream, word: str
) -> None:
    await api.chat([{"role": "developer", "content": "Be terse."}, {"role": "user", "content": word}], model=RAW)
    asked = await upstream.asked_once(word)
    assert asked["messages"] == [{"role": "system", "content": "Be terse."}, {"role": "user", "content": word}]


async def test_a_personality_may_be_named_beside_a_raw_model(api: Api, upstream: Upstream, word: str) -> None:
    answer = await api.chat(f"Hello {word}.", model="scripted-small", cozy={"personality_id": "tutor"})
    asked = await upstream.asked_once(word)
    assert answer.body["cozy"]["personality_id"] == "tutor"
    assert asked["model"] == "scripted-small"
    assert asked["messages"][0]["content"].startswith("You are Mira")


async def test_a_personality_is_named_by_its_model(api: Api, upstream: Upstream, word: str) -> None:
    answer = await api.chat(f"Hello {word}.", model="cozy/tutor")
    assert answer.body["cozy"]["personality_id"] == "tutor"
    assert (await upstream.asked_once(word))["messages"][0]["content"].startswith("You are Mira")


async def test_in_a_session_another_model_speaks_for_the_same_personality(
    api: Api, upstream: Upstream, word: str
) -> None:
    session_id = await api.session(personality_id="tutor")
    await api.chat(f"Hello {word}.", model="scripted-small", cozy={"session_id": session_id})
    asked = await upstream.asked_once(word)
    assert asked["model"] == "scripted-small"
    assert asked["messages"][0]["content"].startswith("You are Mira")


async def test_other_kinds_of_content_are_passed_on(api: Api, upstream: Upstream, word: str) -> None:
    parts = [
        {"type": "text", "text": word},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
    ]
    await api.chat([{"role": "user", "content": parts}], model=RAW)
    assert (await upstream.asked_once(word))["messages"][0]["content"] == parts
