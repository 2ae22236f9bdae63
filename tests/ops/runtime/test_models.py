"""Which model a name means."""

from __future__ import annotations

import pytest

from ops.runtime.models import ModelCatalogue
from schemas.context import ModelChoice
from tests.ops.runtime.conftest import ConfigFolder

TWO = """
providers:
  local: {base_url: 'http://a/v1', models: [llama3, 'qwen*'], resume: prefill}
  openai: {base_url: 'https://api.openai.com/v1', api_key: '${OPENAI_API_KEY:-}', models: [gpt-5, 'gpt-*']}
"""


def choice(provider: str, model: str) -> ModelChoice:
    return ModelChoice(provider=provider, model=model)


def two(folder: ConfigFolder, more: str = "") -> ModelCatalogue:
    folder.write("engines.yaml", TWO + more)
    return folder.load({"OPENAI_API_KEY": "k"}).models


@pytest.mark.parametrize(
    ("environ", "default"),
    [
        ({"OPENAI_API_KEY": "k"}, choice("openai", "gpt-5-mini")),
        ({"OPENAI_API_KEY": "k", "OPENAI_MODEL": "gpt-5"}, choice("openai", "gpt-5")),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}, choice("openai", "auto")),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1", "OPENAI_MODEL": "llama3"}, choice("openai", "llama3")),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://h/v1"}, choice("openai", "auto")),
        ({"OPENAI_MODEL": "gpt-5"}, choice("scripted", "scripted")),
    ],
)
def test_the_environment_alone_chooses_provider_and_model(
    folder: ConfigFolder, environ: dict[str, str], default: ModelChoice
) -> None:
    assert folder.load(environ).models.default == default


def test_openai_s_key_and_address_come_from_the_environment(folder: ConfigFolder) -> None:
    provider = folder.load({"OPENAI_API_KEY": "k"}).models.providers["openai"]
    assert (provider.base_url, provider.api_key) == ("https://api.openai.com/v1", "k")


def test_the_stand_in_serves_its_two_models_and_no_other(folder: ConfigFolder) -> None:
    models = folder.load().models
    assert models.listed() == ["scripted", "scripted-small"]
    assert models.providers["scripted"].base_url == "http://127.0.0.1:9/v1"
    assert models.resolve("gpt-5") is None


def test_a_configured_provider_takes_the_place_of_the_environment_s(folder: ConfigFolder) -> None:
    assert list(two(folder).providers) == ["local", "openai"]


def test_default_means_the_default_model(folder: ConfigFolder) -> None:
    assert two(folder).resolve("default") == choice("local", "llama3")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("qwen3", choice("local", "qwen3")),
        ("gpt-5-nano", choice("openai", "gpt-5-nano")),
        ("openai/gpt-5", choice("openai", "gpt-5")),
        ("local/gpt-5", None),
        ("o3", None),
        ("", None),
        ("LLAMA3", None),
    ],
)
def test_a_name_is_found_in_the_allow_lists_or_nowhere(
    folder: ConfigFolder, name: str, found: ModelChoice | None
) -> None:
    assert two(folder).resolve(name) == found


def test_a_single_server_may_have_slashes_in_its_own_names(folder: ConfigFolder) -> None:
    models = folder.load({"OPENAI_BASE_URL": "https://openrouter.example/v1"}).models
    assert models.resolve("openai/gpt-5") == choice("openai", "openai/gpt-5")


def test_a_single_server_can_be_named_where_its_models_are(folder: ConfigFolder) -> None:
    assert folder.load().models.resolve("scripted/scripted-small") == choice("scripted", "scripted-small")


def test_a_personality_s_name_is_never_a_model(folder: ConfigFolder) -> None:
    assert folder.load({"OPENAI_API_KEY": "k"}).models.resolve("cozy/nobody") is None


def test_patterns_are_not_listed_and_the_default_comes_first(folder: ConfigFolder) -> None:
    assert two(folder, "default_provider: openai").listed() == ["gpt-5-mini", "gpt-5", "llama3"]


def test_a_model_still_to_be_found_out_is_not_listed(folder: ConfigFolder) -> None:
    assert folder.load({"OPENAI_BASE_URL": "http://h/v1"}).models.listed() == []


def test_a_default_model_can_name_its_provider(folder: ConfigFolder) -> None:
    assert two(folder, "default_model: openai/gpt-5").default == choice("openai", "gpt-5")


def test_a_default_model_of_a_default_provider_is_taken_as_it_is(folder: ConfigFolder) -> None:
    more = "default_provider: openai\ndefault_model: gpt-5-nano"
    assert two(folder, more).default == choice("openai", "gpt-5-nano")


def test_what_auto_becomes_must_be_in_the_allow_list(folder: ConfigFolder) -> None:
    models = two(folder)
    assert models.allows("local", "qwen3")
    assert not models.allows("local", "gpt-5")
    assert not models.allows("nobody", "gpt-5")


def test_traits_are_a_model_s_own_where_it_has_some_and_the_provider_s_otherwise(folder: ConfigFolder) -> None:
    models = two(folder, "model_traits: {'qwen*': {supports_vision: false}, gpt-5: {resume: continue}}")
    assert models.traits(choice("local", "qwen3")).resume == "prefill"
    assert not models.traits(choice("local", "qwen3")).supports_vision
    assert models.traits(choice("local", "llama3")).resume == "prefill"
    assert models.traits(choice("openai", "gpt-5")).resume == "continue"
