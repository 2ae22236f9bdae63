"""Settings that are right one by one and wrong together."""

from __future__ import annotations

import pytest

from tests.ops.runtime.conftest import ConfigFolder


def test_a_first_token_later_than_the_end_is_refused(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "generation: {first_token_timeout: 700}")
    assert folder.problems() == [
        "engines.yaml: generation.first_token_timeout: 700 s is not below generation.total_timeout (600 s): "
        "no reply could begin and end"
    ]


def test_a_lease_longer_than_the_sweeper_waits_is_refused(folder: ConfigFolder) -> None:
    assert folder.problems({"COZY_STORAGE__LEASE": "15"})[0].startswith("COZY_STORAGE__LEASE: 15 s is not below")


def test_callers_must_not_go_stale_before_they_are_asked_for_again(folder: ConfigFolder) -> None:
    folder.write("api.yaml", "caller_stale_ttl: 20")
    assert folder.problems()[0].startswith("api.yaml: caller_cache_ttl: 30 s is not below caller_stale_ttl")


@pytest.mark.parametrize("environment", ["production", "test"])
def test_development_s_keys_are_refused_elsewhere(folder: ConfigFolder, environment: str) -> None:
    folder.write("security.yaml", "dev_keys: true")
    assert folder.problems({"APP_ENV": environment})[0].startswith("security.yaml: dev_keys: only development")


def test_a_default_provider_that_is_not_there_is_named_with_those_that_are(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "default_provider: ollama")
    assert folder.problems() == ["engines.yaml: default_provider: there is no provider ollama; there are: scripted"]


def test_a_default_model_outside_the_allow_list_is_refused(folder: ConfigFolder) -> None:
    variables = {"COZY_ENGINES__DEFAULT_MODEL": "gpt-5"}
    assert folder.problems(variables) == [
        "COZY_ENGINES__DEFAULT_MODEL: gpt-5 is not among the models of provider scripted"
    ]


def test_a_personality_s_model_outside_the_allow_list_is_refused(folder: ConfigFolder) -> None:
    folder.write("personalities/tutor.yaml", "id: tutor\nname: T\nprompt: P\nmodel: {name: gpt-5}")
    assert folder.problems() == [
        "personalities/tutor.yaml: model.name: no provider's models in engines.yaml include gpt-5"
    ]


def test_a_provider_may_not_take_the_name_of_our_own_models(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "providers: {cozy: {base_url: 'http://a/v1'}}")
    assert folder.problems()[0].startswith("engines.yaml: providers.cozy: a provider's name")


def test_a_personality_that_uses_openai_needs_its_key_too(folder: ConfigFolder) -> None:
    folder.write(
        "engines.yaml",
        "providers:\n  local: {base_url: 'http://a/v1', models: [llama3]}\n"
        "  openai: {base_url: 'https://api.openai.com/v1'}\n",
    )
    folder.write("personalities/tutor.yaml", "id: tutor\nname: T\nprompt: P\nmodel: {name: openai/gpt-5}")
    assert folder.load().keys_missing == (
        "engines.yaml: providers.openai.api_key: missing; set OPENAI_API_KEY, OpenAI answers nobody without a key",
    )
