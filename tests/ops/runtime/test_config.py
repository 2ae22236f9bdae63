"""Where a setting's value comes from, and how the start says no."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ops.runtime import config
from ops.runtime.config import ConfigError
from tests.ops.runtime.conftest import SCRIPTED, ConfigFolder


def test_an_empty_folder_and_environment_give_the_defaults_of_production(folder: ConfigFolder) -> None:
    loaded = folder.load()
    assert (loaded.app.environment, loaded.api.port, loaded.api.error_details) == ("production", 8000, False)
    assert (loaded.storage.lease, loaded.storage.sweep_after, loaded.api.stream_grace) == (10, 15, 120)


def test_development_is_open_and_quick(folder: ConfigFolder) -> None:
    loaded = folder.load({"APP_ENV": "development"})
    assert loaded.api.error_details
    assert loaded.api.page_enabled
    assert loaded.security.dev_keys
    assert (loaded.storage.lease, loaded.api.stream_grace, loaded.app.drain_seconds) == (3, 7, 7)


def test_the_test_environment_is_quick_without_development_s_keys_and_page(folder: ConfigFolder) -> None:
    loaded = folder.load({"APP_ENV": "test"})
    assert (loaded.storage.lease, loaded.security.dev_keys, loaded.api.page_enabled) == (3, False, False)


def test_yaml_wins_over_our_variable_which_wins_over_the_plain_one(folder: ConfigFolder) -> None:
    plain, ours = {"PORT": "1001"}, {"PORT": "1001", "COZY_API__PORT": "1002"}
    assert folder.load(plain).api.port == 1001
    assert folder.load(ours).api.port == 1002
    folder.write("api.yaml", "port: 1003")
    assert folder.load(ours).api.port == 1003


def test_a_key_in_yaml_leaves_its_neighbours_to_the_environment(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "generation:\n  retries: 1")
    generation = folder.load({"COZY_ENGINES__GENERATION__IDLE_TIMEOUT": "7"}).engines.generation
    assert (generation.retries, generation.idle_timeout, generation.total_timeout) == (1, 7, 600)


def test_a_section_with_nothing_set_in_it_changes_nothing(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "generation:\n#  retries: 1\nproviders:\n")
    assert folder.load().engines.generation.retries == 3


@pytest.mark.parametrize(("text", "value"), [("off", False), ("no", False), ("true", True)])
def test_a_variable_is_read_as_yaml_where_the_setting_is_not_a_text(
    folder: ConfigFolder, text: str, value: bool
) -> None:
    assert folder.load({"COZY_API__DOCS_ENABLED": text}).api.docs_enabled is value


def test_a_variable_can_hold_a_list(folder: ConfigFolder) -> None:
    origins = folder.load({"COZY_API__CORS_ORIGINS": "[https://a.example, https://b.example]"}).api.cors_origins
    assert origins == ("https://a.example", "https://b.example")


def test_a_variable_is_taken_as_it_is_where_the_setting_is_a_text(folder: ConfigFolder) -> None:
    assert folder.load({"COZY_APP__INSTANCE": "0012"}).app.instance == "0012"


def test_an_empty_plain_variable_counts_as_not_set(folder: ConfigFolder) -> None:
    assert folder.load({"PORT": "", "DATABASE_URL": ""}).api.port == 8000


def test_variables_that_only_look_like_ours_are_left_alone(folder: ConfigFolder) -> None:
    assert folder.load({"COZY_PORT": "tcp://10.0.0.1:80", "COZY_SERVICE_HOST": "10.0.0.1"}).api.port == 8000


def test_references_in_yaml_are_replaced_from_the_environment(folder: ConfigFolder) -> None:
    folder.write("api.yaml", "port: ${EDGE_PORT:-4000}\nhost: ${EDGE_HOST}")
    api = folder.load({"EDGE_HOST": "0.0.0.0"}).api
    assert (api.port, api.host) == (4000, "0.0.0.0")


def test_the_variable_names_the_folder(folder: ConfigFolder) -> None:
    folder.write("api.yaml", "port: 4321")
    assert config.load({**SCRIPTED, "COZY_CONFIG_DIR": str(folder.path)}).api.port == 4321


def test_the_shipped_configuration_starts_as_it_is() -> None:
    assert [each.id for each in config.load(SCRIPTED).personalities.all()] == ["default", "tutor"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="COZY_CONFIG_DIR"):
        config.load(SCRIPTED, tmp_path / "nowhere")


def test_a_wrong_type_names_file_and_field(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "generation:\n  idle_timeout: many")
    assert folder.problems() == ["engines.yaml: generation.idle_timeout: Expected float, got str"]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"PORT": "many"}, "PORT: Expected int, got str"),
        ({"COZY_API__PORT": "99999"}, "COZY_API__PORT: Expected int <= 65535"),
        ({"APP_ENV": "prod"}, "APP_ENV: Expected one of development, production, test"),
        ({"COZY_API__PROT": "1"}, "COZY_API__PROT: no such setting; did you mean port?"),
        ({"OPENAI_BASE_URL": "x:1"}, "OPENAI_BASE_URL: Expected an address such as http://127.0.0.1:11434/v1"),
        ({"COZY_ENGINES__GENERATION": "7"}, "COZY_ENGINES__GENERATION: Expected keys and values, got int"),
    ],
)
def test_a_wrong_variable_is_named_rather_than_a_file(
    folder: ConfigFolder, variables: dict[str, str], line: str
) -> None:
    assert folder.problems(variables) == [line]


def test_an_unknown_namespace_is_named(folder: ConfigFolder) -> None:
    assert folder.problems({"COZY_ENGINE__RETRIES": "1"})[0].startswith("COZY_ENGINE__RETRIES: no such setting")


def test_an_unknown_key_is_named_with_the_one_that_was_meant(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "generation:\n  idle_timout: 3")
    assert folder.problems() == ["engines.yaml: generation.idle_timout: no such setting; did you mean idle_timeout?"]


def test_a_file_that_nobody_reads_is_named(folder: ConfigFolder) -> None:
    folder.write("engine.yaml", "generation: {}")
    assert folder.problems()[0].startswith("engine.yaml: not a file of settings")


def test_all_mistakes_are_told_at_once(folder: ConfigFolder) -> None:
    folder.write("api.yaml", "port: many\nheartbeat: 0")
    folder.write("engines.yaml", "providers: {local: {kind: ollama}}")
    folder.write("personalities/tutor.yaml", "id: tutor\nname: T\n")
    assert folder.problems() == [
        "api.yaml: port: Expected int, got str",
        "api.yaml: heartbeat: Expected float > 0.0",
        "engines.yaml: providers.local.kind: Expected one of openai",
        "engines.yaml: providers.local.base_url: missing",
        "personalities/tutor.yaml: prompt: missing",
    ]


@pytest.mark.parametrize("value", ["0", "-1", ".nan", ".inf", "null", "true"])
def test_a_senseless_time_stops_the_start(folder: ConfigFolder, value: str) -> None:
    folder.write("engines.yaml", f"generation:\n  total_timeout: {value}")
    assert folder.problems()[0].startswith("engines.yaml: generation.total_timeout: Expected float")


def test_a_secret_written_into_yaml_is_refused_and_not_repeated(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "providers: {a: {base_url: 'http://a/v1', api_key: canary-4711}}")
    folder.write("storage.yaml", "database_url: postgresql://u:canary-4712@h/db")
    lines = folder.problems()
    assert lines == [
        "engines.yaml: providers.a.api_key: secrets come from the environment; write ${NAME}",
        "storage.yaml: database_url: secrets come from the environment; write ${NAME}",
    ]


def test_the_version_changes_with_a_setting_and_with_a_personality(folder: ConfigFolder) -> None:
    first = folder.load().version
    folder.write("api.yaml", "heartbeat: 14")
    second = folder.load().version
    folder.write("personalities/default.yaml", "id: default\nname: Cozy\nprompt: Be kinder.\n")
    assert len({first, second, folder.load().version}) == 3


def test_the_version_is_the_same_for_every_process_of_one_configuration(folder: ConfigFolder) -> None:
    folder.write("api.yaml", "# a comment is no setting")
    one = folder.load({"HEALTH_PORT": "1", "COZY_APP__INSTANCE": "a", "OPENAI_API_KEY": "k-one"})
    other = folder.load({"HEALTH_PORT": "2", "COZY_APP__INSTANCE": "b", "OPENAI_API_KEY": "k-two"})
    assert one.version == other.version


def test_the_summary_shows_whether_a_secret_is_set_and_never_the_secret(folder: ConfigFolder) -> None:
    loaded = folder.load(
        {
            "OPENAI_API_KEY": "canary-key",
            "OPENAI_BASE_URL": "http://me:canary-base@h/v1",
            "DATABASE_URL": "postgresql://u:canary-db@h/db",
            "NATS_URL": "nats://canary-nats@h:1",
        }
    )
    assert b"canary" not in msgspec.json.encode(loaded.summary)
    assert loaded.summary["engines"]["providers"]["openai"]["api_key"] == "set"
    assert loaded.summary["storage"]["database_url"] == "postgresql://***@h/db"


def test_a_process_without_models_starts_without_a_model_server(folder: ConfigFolder) -> None:
    folder.environ.clear()
    loaded = folder.load()
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*OPENAI_BASE_URL.*SCRIPTED_URL"):
        _ = loaded.models


def test_openai_itself_without_a_key_stops_only_who_talks_to_it(folder: ConfigFolder) -> None:
    loaded = folder.load({"OPENAI_BASE_URL": "https://api.openai.com/v1"})
    with pytest.raises(ConfigError, match="OPENAI_API_KEY: missing"):
        _ = loaded.models


def test_a_provider_s_key_that_is_not_set_stops_only_who_talks_to_it(folder: ConfigFolder) -> None:
    folder.write("engines.yaml", "providers: {a: {base_url: 'http://a/v1', api_key: '${A_KEY}'}}")
    loaded = folder.load()
    with pytest.raises(ConfigError, match=r"engines.yaml: providers.a.api_key: the environment variable A_KEY is not"):
        _ = loaded.models
    assert folder.load({"A_KEY": "k"}).models.providers["a"].api_key == "k"
