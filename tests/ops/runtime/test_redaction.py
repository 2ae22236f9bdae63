"""What is masked by its look and what by its name."""

from __future__ import annotations

import pytest

from ops.runtime.redaction import Rule, mask, mask_line, mask_person, rule_of


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key sk-proj-abc_DEF-123456 here", "key sk-*** here"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("bearer ABCDEF1234", "bearer ***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1", "***"),
        ("postgresql://cozy:p@ss/w0rd@h:5432/db", "postgresql://***@h:5432/db"),
        ("nats://token@h:4222", "nats://***@h:4222"),
        ("host=h password=hunter2 dbname=d", "host=h password=*** dbname=d"),
        ("https://h/v1?api_key=abc&x=1", "https://h/v1?api_key=***&x=1"),
    ],
)
def test_keys_and_passwords_are_masked_by_their_look(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask_line(text.encode()) == masked.encode()


@pytest.mark.parametrize(
    "text",
    ["task-123456789", "0190d6e0-aaaa-7bbb-8ccc-ddddeeeeffff", "https://h:8000/v1", "risk-assessment", "basic"],
)
def test_what_only_resembles_a_key_stays(text: str) -> None:
    assert mask(text) == text


def test_persons_are_masked_with_their_addresses_and_numbers() -> None:
    assert mask_person("I am ann.b+c@mail.example.org, +49 170 1234567") == "I am [e-mail], [number]"


@pytest.mark.parametrize("name", ["content", "Text", "prompt", "messages", "arguments", "title", "body"])
def test_names_of_what_people_say_are_content(name: str) -> None:
    assert rule_of(name) is Rule.CONTENT


@pytest.mark.parametrize(
    "name",
    ["authorization", "Cookie", "api_key", "x-api-key", "password_hash", "client_secret", "token", "database_url"],
)
def test_names_of_secrets_are_never_logged(name: str) -> None:
    assert rule_of(name) is Rule.NEVER


@pytest.mark.parametrize("name", ["turn_id", "prompt_tokens", "history_tokens", "route", "code", "context"])
def test_names_of_plain_values_are_open(name: str) -> None:
    assert rule_of(name) is Rule.OPEN
