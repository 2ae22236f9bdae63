"""Models and personalities: who there is to talk to, as OpenAI's clients ask for it and as ours do."""

from __future__ import annotations

import openai
import pytest
from openai import AsyncOpenAI

from tests.journeys.api import Api


async def test_personalities_come_first_among_the_models(client: AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert listed[0] == "cozy/default"
    assert set(listed) == {"cozy/default", "cozy/tutor", "scripted", "scripted-small"}


async def test_every_listed_model_can_be_asked_for(client: AsyncOpenAI) -> None:
    async for model in client.models.list():
        assert await client.models.retrieve(model.id) == model


async def test_every_listed_model_answers(client: AsyncOpenAI) -> None:
    async for model in client.models.list():
        reply = await client.chat.completions.create(model=model.id, messages=[{"role": "user", "content": "You?"}])
        assert (reply.model, reply.choices[0].finish_reason) == (model.id, "stop")


@pytest.mark.parametrize("name", ["gpt-none", "cozy/nobody", "cozy/", "openai/scripted"])
async def test_an_unknown_model_is_told_by_the_code(client: AsyncOpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.models.retrieve(name)
    assert missing.value.code == "RESOURCE_MODEL_NOT_FOUND"


async def test_personalities_are_listed_without_their_prompts(api: Api) -> None:
    listed = (await api.call("GET", "/v1/personalities")).body
    assert [personality["id"] for personality in listed["data"]] == ["default", "tutor"]
    assert "prompt" not in listed["data"][0]
    assert (listed["object"], listed["has_more"], listed["next_cursor"]) == ("list", False, None)
