"""What a YAML file may say, and what is told of one that says it wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.runtime.settings import ConfigError
from ops.runtime.yaml_files import Place, read_yaml, replace_references


def read(tmp_path: Path, text: str | bytes) -> object:
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_yaml(path, "a.yaml")


def problem(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    return str(raised.value)


def replaced(tree: dict[str, object], **environ: str) -> tuple[dict[str, object], list[tuple[Place, str]]]:
    notes: list[tuple[Place, str]] = []
    return replace_references(tree, environ, lambda place, message: notes.append((place, message))), notes


def test_a_file_of_comments_sets_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "# port: 8000\n") == {}


def test_a_key_set_twice_is_named_with_its_line(tmp_path: Path) -> None:
    assert problem(tmp_path, "a: 1\nb: 2\na: 3\n").startswith("a.yaml: line 3, column 1")


def test_broken_yaml_is_told_by_line_without_its_text(tmp_path: Path) -> None:
    told = problem(tmp_path, "a: *canary4711\n")
    assert told.startswith("a.yaml: line 1, column 4: not YAML")
    assert "canary" not in told


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    assert "Expected keys and values" in problem(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    assert problem(tmp_path, b"a: \xff\xfe") == "a.yaml: not UTF-8"


def test_a_character_that_yaml_does_not_allow_is_refused(tmp_path: Path) -> None:
    assert problem(tmp_path, "a: \x01") == "a.yaml: not YAML: it has a character that YAML does not allow"


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path, "a.yaml")


def test_references_are_replaced_within_texts_and_lists() -> None:
    tree, notes = replaced({"a": "http://${HOST}:${PORT:-80}/", "b": ["${HOST}"]}, HOST="h")
    assert (tree, notes) == ({"a": "http://h:80/", "b": ["h"]}, [])


def test_an_empty_variable_counts_as_not_set() -> None:
    assert replaced({"a": "${X:-d}"}, X="")[0] == {"a": "d"}


def test_a_doubled_dollar_stands_for_itself() -> None:
    assert replaced({"a": "$${X} costs $5"})[0] == {"a": "${X} costs $5"}


def test_a_variable_that_is_not_set_is_noted() -> None:
    assert replaced({"a": {"b": "${NOPE}"}})[1] == [(("a", "b"), "the environment variable NOPE is not set")]


@pytest.mark.parametrize("text", ["${X-1}", "${}", "${1X}", "${X"])
def test_a_reference_that_is_none_is_noted(text: str) -> None:
    assert replaced({"a": text}, X="1")[1][0][1].startswith("Expected ${NAME}")


@pytest.mark.parametrize("value", ["abc", 12345, "${X:-abc}", "a${X}"])
def test_a_written_secret_is_noted(value: object) -> None:
    assert replaced({"api_key": value}, X="1")[1] == [
        (("api_key",), "secrets come from the environment; write ${NAME}")
    ]


@pytest.mark.parametrize("value", ["${X}", "${X:-}", "", None])
def test_a_secret_from_the_environment_or_none_is_fine(value: object) -> None:
    assert replaced({"api_key": value}, X="1")[1] == []


def test_an_address_may_be_written_without_its_password() -> None:
    assert replaced({"url": "postgresql://cozy:${PW}@h/db", "other": "nats://h:4222"}, PW="x")[1] == []


def test_an_address_with_its_password_is_noted_also_as_a_default() -> None:
    assert replaced({"url": "${URL:-postgresql://cozy:pw@h/db}"})[1]
