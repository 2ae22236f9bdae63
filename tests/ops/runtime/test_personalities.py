"""Personality files: read together, or refused with every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.runtime import personalities
from ops.runtime.personalities import PersonalitySet
from ops.runtime.settings import ConfigError

GOOD = "id: {id}\nname: N\nprompt: P\n"


@pytest.fixture
def people(tmp_path: Path) -> Path:
    (tmp_path / "default.yaml").write_text(GOOD.format(id="default"))
    return tmp_path


def problems(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        personalities.load(folder)
    return str(raised.value).splitlines()


def test_the_default_comes_first_and_the_others_by_id(people: Path) -> None:
    for name in ("zoe", "adam"):
        (people / f"{name}.yaml").write_text(GOOD.format(id=name))
    assert [each.id for each in personalities.load(people).all()] == ["default", "adam", "zoe"]


def test_an_unknown_id_is_nobody() -> None:
    assert PersonalitySet({}).get("nobody") is None


def test_the_version_follows_what_a_file_says_and_not_how_it_is_written(people: Path) -> None:
    path = people / "default.yaml"
    versions = []
    for text in (
        GOOD.format(id="default"),
        "# hello\nprompt: P\nname: N\nid: default\n",
        "id: default\nname: N\nprompt: Q",
    ):
        path.write_text(text)
        default = personalities.load(people).get("default")
        assert default
        versions.append(default.version)
    assert versions[0] == versions[1] != versions[2]


TUTOR = GOOD.format(id="tutor")
MISTAKES = [
    ("name: N\nprompt: P", "id: missing"),
    ("id: tutor\nname: N", "prompt: missing"),
    (GOOD.format(id="other"), "id: Expected tutor, as the file is named"),
    (TUTOR + "model: {temperature: 3}", "model.temperature: Expected float <= 2.0"),
    (TUTOR + "promt: x", "promt: no such setting; did you mean prompt?"),
    (TUTOR + "version: x", "version: no such setting; the version is made from the file"),
    (TUTOR + "on_busy: wait", "on_busy: Expected one of queue, reject, interrupt"),
    ("id: tutor\nname: [", "line 2, column 8: not YAML: expected the node content, but found this"),
    ("", "id: missing"),
]


@pytest.mark.parametrize(("text", "line"), MISTAKES)
def test_a_bad_file_is_told_by_file_and_field(people: Path, text: str, line: str) -> None:
    (people / "tutor.yaml").write_text(text)
    assert problems(people)[0] == f"personalities/tutor.yaml: {line}"


def test_the_same_id_twice_is_refused(people: Path) -> None:
    (people / "default.yml").write_text(GOOD.format(id="default"))
    assert problems(people) == ["personalities/default.yml: id: default is another file's already"]


def test_without_the_default_nothing_starts(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["personalities/default.yaml: missing; every installation needs this personality"]


def test_a_broken_default_is_told_once(people: Path) -> None:
    (people / "default.yaml").write_text("id: default")
    assert problems(people) == [
        "personalities/default.yaml: name: missing",
        "personalities/default.yaml: prompt: missing",
    ]


def test_what_an_editor_leaves_behind_is_not_read(people: Path) -> None:
    (people / ".default.yaml.swp").write_text("x")
    (people / ".hidden.yaml").write_text("x")
    assert len(personalities.load(people).all()) == 1
