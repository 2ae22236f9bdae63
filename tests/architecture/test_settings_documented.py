"""Every setting stands in the shipped YAML, commented out, with its default and meaning; nothing else stands there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest
import yaml

from ops.runtime import settings
from ops.runtime.config import PACKAGED

Place = tuple[str, ...]
EXAMPLES = {"providers": "openai", "model_traits": "llama3*"}
"""Where a name is free, the shipped file shows one."""
EXAMPLE_VALUES = {"base_url": "https://api.openai.com/v1", "api_key": "${OPENAI_API_KEY}"}


def meanings() -> dict[tuple[str, str], str]:
    """The docstring of each field, by class and field."""
    assert settings.__file__
    found = {}
    for node in ast.parse(Path(settings.__file__).read_text()).body:
        if isinstance(node, ast.ClassDef):
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                    found[node.name, field.target.id] = " ".join(ast.literal_eval(text.value).split())  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def expected(kind: type[msgspec.Struct], above: Place = ()) -> dict[Place, tuple[str, Any]]:
    """Meaning and default of each setting below a place; a section's default is not asked for."""
    said: dict[Place, tuple[str, Any]] = {}
    for field in msgspec.structs.fields(kind):
        place = (*above, field.name)
        meaning = MEANINGS[kind.__name__, field.name]
        below = field.type if _is_struct(field.type) else None
        if get_origin(field.type) is dict and _is_struct(get_args(field.type)[1]):
            said[place], below = (meaning, ...), get_args(field.type)[1]
            said |= expected(below, (*place, EXAMPLES[field.name]))
        elif below:
            said[place] = (meaning, ...)
            said |= expected(below, place)
        else:
            default = EXAMPLE_VALUES.get(field.name, field.default)
            said[place] = (meaning, list(default) if isinstance(default, tuple) else default)
    return said


def uncommented(text: str) -> str:
    """The file as it is once every setting's first `#` is removed; a line of words keeps it."""
    return re.sub(r"^#(?! \S|$)", "", text, flags=re.MULTILINE)


def shipped(text: str) -> dict[Place, tuple[str, Any]]:
    """The comment above each key of an uncommented file, and its value."""
    said: dict[Place, tuple[str, Any]] = {}
    comment: list[str] = []
    place: list[str] = []
    tree = yaml.safe_load(text)
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("# "):
            comment.append(words[2:])
            continue
        if found := re.match(r"( *)([^\s:]+):", line):
            place[len(found[1]) // 2 :] = [found[2]]
            value: Any = tree
            for key in place:
                value = value[key]
            said[tuple(place)] = (" ".join(comment), ... if isinstance(value, dict) else value)
        comment = []
    return said


MEANINGS = meanings()
EVERY_FILE = pytest.mark.parametrize("namespace", settings.NAMESPACES)


@EVERY_FILE
def test_the_shipped_file_sets_nothing(namespace: str) -> None:
    assert yaml.safe_load((PACKAGED / f"{namespace}.yaml").read_text()) is None


@EVERY_FILE
def test_the_shipped_file_shows_every_setting_with_its_meaning_and_default(namespace: str) -> None:
    said = shipped(uncommented((PACKAGED / f"{namespace}.yaml").read_text()))
    wanted = expected(settings.NAMESPACES[namespace])
    # A key that is an example's name has no meaning of its own.
    assert {place: each for place, each in said.items() if place[-1] not in EXAMPLES.values()} == wanted


def test_no_other_file_is_shipped() -> None:
    assert {path.stem for path in PACKAGED.glob("*.y*ml")} == set(settings.NAMESPACES)


def test_every_default_of_an_environment_is_a_setting() -> None:
    for spaces in settings.DEFAULTS_OF.values():
        for namespace, values in spaces.items():
            msgspec.convert(values, settings.NAMESPACES[namespace])


def test_every_default_of_an_environment_is_told_in_the_setting_s_meaning() -> None:
    for space, values in settings.DEFAULTS_OF["development"].items():
        for key, value in values.items():
            meaning = MEANINGS[settings.NAMESPACES[space].__name__, key]
            told = "true" if value is True else f"{value:g}"
            assert re.search(rf"In development( and test)?: {told}\.", meaning), (space, key)


def test_a_plain_variable_is_told_in_the_meaning_of_its_setting() -> None:
    for name, (space, key) in settings.PLAIN_VARIABLES.items():
        assert name in MEANINGS[settings.NAMESPACES[space].__name__, key]
