"""Models: personalities first, `cozy/default` before all, then the allow-list's; and one of them by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai import AsyncOpenAI, NotFoundError

from gateway.models import all_models, find_model
from ops.runtime import config
from ops.runtime.config import Config
from schemas.faults import ModelNotFound
from tests.gateway.conftest import KEY, Running
from tests.gateway.peers import RecordsPeer

ENGINES = """
providers:
  local:
    base_url: http://127.0.0.1:1/v1
    models: [llama, "org/name:8b", "ft-*", cozy/tutor]
"""


@pytest.fixture
def settings(settings_folder: Path, tmp_path: Path) -> Config:
    (tmp_path / "personalities").symlink_to(settings_folder / "personalities")
    (tmp_path / "engines.yaml").write_text(ENGINES)
    return config.load({"APP_ENV": "test"}, tmp_path)


def test_personalities_come_first_and_no_name_comes_twice(settings: Config) -> None:
    assert [(model.id, model.owned_by) for model in all_models(settings)] == [
        ("cozy/default", "cozy"),
        ("cozy/tutor", "cozy"),
        ("llama", "local"),
        ("org/name:8b", "local"),
    ]


@pytest.mark.parametrize("name", ["cozy/default", "cozy/tutor", "llama", "org/name:8b", "ft-mine"])
def test_a_model_is_found_by_its_name(settings: Config, name: str) -> None:
    assert find_model(settings, name).id == name


@pytest.mark.parametrize("name", ["cozy/nobody", "cozy", "tutor", "gpt-none", ""])
def test_a_name_that_is_none_is_not_found(settings: Config, name: str) -> None:
    with pytest.raises(ModelNotFound):
        find_model(settings, name)


def test_personalities_are_there_without_a_model_server(settings_folder: Path) -> None:
    assert all_models(config.load({"APP_ENV": "test"}, settings_folder))[0].id == "cozy/default"


async def test_openais_own_client_lists_and_finds_models(gateway: Running, records: RecordsPeer) -> None:
    client = AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0)
    listed = await client.models.list()
    assert listed.data[0].id == "cozy/default"
    assert {model.object for model in listed.data} == {"model"}
    for model in listed.data:
        assert await client.models.retrieve(model.id) == model
    with pytest.raises(NotFoundError) as caught:
        await client.models.retrieve("cozy/nobody")
    assert caught.value.code == "RESOURCE_MODEL_NOT_FOUND"
    await client.close()


async def test_personalities_are_listed_without_their_prompts(gateway: Running, records: RecordsPeer) -> None:
    status, _, body = await gateway.call("GET", "/v1/personalities")
    assert status == 200
    assert [each["id"] for each in body["data"]] == ["default", "tutor"]
    tutor = body["data"][1]
    assert len(tutor.pop("version")) == 12
    assert tutor == {
        "id": "tutor",
        "object": "personality",
        "name": "Tutor",
        "description": "Teaches.",
        "model": "default",
        "tools": ["clock"],
    }


async def test_personalities_come_by_the_page(gateway: Running, records: RecordsPeer) -> None:
    _, _, first = await gateway.call("GET", "/v1/personalities?limit=1")
    assert (first["has_more"], first["next_cursor"]) == (True, "default")
    _, _, second = await gateway.call("GET", f"/v1/personalities?limit=1&cursor={first['next_cursor']}")
    assert [each["id"] for each in second["data"]] == ["tutor"]
    assert (second["has_more"], second["next_cursor"]) == (False, None)


async def test_a_cursor_of_no_personality_is_refused(gateway: Running, records: RecordsPeer) -> None:
    assert (await gateway.problem("GET", "/v1/personalities?cursor=nobody"))["param"] == "cursor"
