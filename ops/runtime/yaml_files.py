"""YAML files as trees: no key twice, no secret written out, `${NAME}` replaced from the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ops.runtime.redaction import holds_secret, names_secret
from ops.runtime.settings import ConfigError

Tree = dict[str, Any]
Place = tuple[str, ...]
"""Where in a tree: the keys from its root."""
Note = Callable[[Place, str], None]
"""Hears of a mistake at a place."""

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\})?")
_WITHOUT_DEFAULT = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-)?\}")


class EnvironmentText(str):
    """Words from the environment: taken as they are where a setting is a text, read as YAML where it is not."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, except that a key set twice is a mistake: it would silently lose one of the two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, "this key is set twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, name: str) -> Tree:
    """The keys and values of one file; none for a file of comments. Raises ConfigError that starts with `name`.

    The message has line and column, never the text that stands there.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506, a SafeLoader
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{name}: {_position(error)}not YAML: {_without_quotes(error.problem)}") from None
    except yaml.YAMLError:
        raise ConfigError(f"{name}: not YAML: it has a character that YAML does not allow") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}: Expected keys and values, got {type(tree).__name__}")
    return tree


def _position(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _without_quotes(problem: str | None) -> str:
    # What YAML quotes is the file's own text, which may be a secret.
    return re.sub(r"'[^']{2,}'", "this", problem or "cannot be read")


def replace_references(tree: Tree, environ: Mapping[str, str], note: Note) -> Tree:
    """The tree with every `${NAME}` and `${NAME:-default}` replaced; `$${` stands for `${`.

    An empty variable counts as not set. Secrets that are written out, and variables that are not set, are noted.
    """

    def walk(value: Any, place: Place) -> Any:
        if isinstance(value, dict):
            return {key: walk(below, (*place, str(key))) for key, below in value.items()}
        if isinstance(value, list):
            return [walk(below, (*place, str(index))) for index, below in enumerate(value)]
        if place and _is_written_out(place[-1], value):
            note(place, "secrets come from the environment; write ${NAME}")
        if isinstance(value, str) and "${" in value:
            return _replaced(value, environ, lambda message: note(place, message))
        return value

    replaced: Tree = walk(tree, ())
    return replaced


def _is_written_out(key: str, value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return False
    text = _WITHOUT_DEFAULT.sub("", str(value))
    return bool(text) and (names_secret(key) or holds_secret(text))


def _replaced(text: str, environ: Mapping[str, str], note: Callable[[str], None]) -> str:
    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if match["name"] is None:
            note("Expected ${NAME} or ${NAME:-default}; write $${ for a literal ${")
            return ""
        if value := environ.get(match["name"]):
            return value
        if match["default"] is None:
            note(f"the environment variable {match['name']} is not set")
            return ""
        return match["default"][2:]

    return EnvironmentText(_REFERENCE.sub(value_of, text))
