"""ops/local/launch_settings.py, and the words it leads to."""

import socket
from pathlib import Path

import pytest

from ops.local.launch_settings import PROJECT, SettingError, read_settings
from ops.local.welcome import welcome


def test_without_variables_it_is_development_on_port_8000_with_a_stand_in() -> None:
    settings = read_settings({"NATS_URL": "", "OPENAI_API_KEY": ""})
    assert (settings.port, settings.data_folder, settings.app_env) == (8000, PROJECT / ".data", "development")
    assert (settings.nats_url, settings.database_url, settings.has_model, settings.pools) == ("", "", False, {})


def test_each_variable_is_heard() -> None:
    settings = read_settings(
        {
            "PORT": "8001",
            "DATA_DIR": "here",
            "NATS_URL": "nats://n",
            "DATABASE_URL": "postgresql://d",
            "OPENAI_BASE_URL": "http://o",
            "APP_ENV": "production",
            "COZY_POOLS": "generation=2,gateway=2",
        },
        scale="generation=3",
    )
    assert (settings.port, settings.data_folder, settings.app_env) == (8001, Path.cwd() / "here", "production")
    assert (settings.nats_url, settings.database_url, settings.has_model) == ("nats://n", "postgresql://d", True)
    assert settings.pools == {"generation": 3, "gateway": 2}


def test_several_gateways_share_the_port_unless_told_otherwise() -> None:
    assert not read_settings({}).share_port
    assert read_settings({"COZY_POOLS": "gateway=2"}).share_port
    assert not read_settings({"COZY_POOLS": "gateway=2", "COZY_API__REUSE_PORT": "false"}).share_port


def test_several_gateways_have_ports_of_their_own_where_the_system_cannot_share_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    assert not read_settings({"COZY_POOLS": "gateway=2"}).share_port


@pytest.mark.parametrize(
    ("variable", "value"), [("PORT", "0"), ("PORT", "65536"), ("PORT", "http"), ("COZY_POOLS", "generation:2")]
)
def test_a_senseless_variable_is_named_and_quoted(variable: str, value: str) -> None:
    with pytest.raises(SettingError, match=rf"{variable}.*'{value}'"):
        read_settings({variable: value})


def test_a_newcomer_reads_the_address_the_keys_a_request_and_that_it_is_a_stand_in() -> None:
    text = welcome(read_settings({"PORT": "8001"}))
    for words in ("http://127.0.0.1:8001/v1/chat/completions", "sk-cozy-dev", "sk-cozy-admin", '"cozy/default"'):
        assert words in text
    for words in ("stand-in", "OPENAI_API_KEY=", "OPENAI_BASE_URL=", "Ollama", "LM Studio", "vLLM"):
        assert words in text


def test_with_a_model_nothing_is_said_of_a_stand_in() -> None:
    assert "stand-in" not in welcome(read_settings({"OPENAI_API_KEY": "sk-secret"}))
    assert "sk-secret" not in welcome(read_settings({"OPENAI_API_KEY": "sk-secret"}))


def test_development_keys_are_not_offered_elsewhere() -> None:
    assert "sk-cozy" not in welcome(read_settings({"APP_ENV": "production"}))
