"""Settings from several sources laid over each other and read into structs; each mistake names its source and field."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
import yaml
from msgspec import inspect

from ops.runtime.settings import HttpUrl
from ops.runtime.yaml_files import EnvironmentText, Note, Place, Tree

PREFIX = "COZY_"
S = TypeVar("S", bound=msgspec.Struct)


class Sheet:
    """What is known of one namespace: its values by source, strongest first, and the mistakes found in them."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.problems: list[str] = []
        self._tree: Tree = {}
        self._origins: dict[Place, str] = {}

    def lay_below(self, tree: Tree, origin: Callable[[Place], str] | None = None) -> None:
        """Add a source weaker than those before. `origin` names a place in it; None: the namespace's file."""
        self._tree = _merged(self._tree, tree)
        for place in _places(tree):
            self._origins.setdefault(place, origin(place) if origin else self.in_file(place))

    def note(self, place: Place, message: str) -> None:
        """Keep a mistake, as one line: `engines.yaml: generation.idle_timeout: Expected float, got str`."""
        self.problems.append(f"{self.name_of(place)}: {message}")

    def name_of(self, place: Place) -> str:
        """Who set this place, and what it is called there; a place nobody set is the file's."""
        return self._origins.get(place) or self.in_file(place)

    def read(self, kind: type[S]) -> S | None:
        """The settings, checked field by field; None, with every mistake noted, where they cannot be made."""
        return read_struct(kind, self._tree, (), self.note)

    def sets(self, key: str) -> bool:
        """Whether a source says anything of this key."""
        return bool(self._tree.get(key))

    def in_file(self, place: Place) -> str:
        """What a place is called in the namespace's YAML file."""
        return f"{self.namespace}.yaml: {'.'.join(place)}" if place else f"{self.namespace}.yaml"


def variables(namespace: str, environ: Mapping[str, str]) -> tuple[Tree, dict[Place, str]]:
    """What `COZY_<NAMESPACE>__<KEY>__<SUBKEY>` variables say of a namespace, and which variable says it."""
    tree: Tree = {}
    names: dict[Place, str] = {}
    start = f"{PREFIX}{namespace.upper()}__"
    for name in sorted(environ):
        if name.upper().startswith(start):
            place = tuple(name[len(start) :].lower().split("__"))
            names[place] = name
            _put(tree, place, EnvironmentText(environ[name]))
    return tree, names


def _put(tree: Tree, place: Place, value: Any) -> None:
    for key in place[:-1]:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[key] = {}
        tree = below
    tree[place[-1]] = value


def _merged(strong: Any, weak: Any) -> Any:
    if isinstance(strong, dict) and isinstance(weak, dict):
        both = {key: _merged(value, weak[key]) if key in weak else value for key, value in strong.items()}
        return both | {key: value for key, value in weak.items() if key not in strong}
    # A section whose lines are all commented out is null in YAML, and sets nothing.
    return weak if strong is None and isinstance(weak, dict) else strong


def _places(tree: Tree, above: Place = ()) -> list[Place]:
    found: list[Place] = []
    for key, value in tree.items():
        place = (*above, str(key))
        found += [place, *_places(value, place)] if isinstance(value, dict) else [place]
    return found


def read_struct(kind: type[S], value: Any, place: Place, note: Note) -> S | None:
    """The struct that a tree spells; None, with every mistake noted, where there is none."""
    tree = _as_mapping(value, place, note)
    if tree is None:
        return None
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key in tree:
        if key not in fields:
            note((*place, str(key)), _unknown(str(key), fields))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in tree:
            values |= _read_field(name, field.type, tree[name], (*place, name), note)
        elif field.required:
            note((*place, name), "missing")
    complete = all(name in values for name, field in fields.items() if field.required)
    return kind(**values) if complete else None


def _read_field(name: str, kind: Any, value: Any, place: Place, note: Note) -> dict[str, Any]:
    """`{name: value}`, or nothing where the value is wrong: what is wrong has been noted and stops the start."""
    if _is_struct(kind):
        read = read_struct(kind, value, place, note)
        return {} if read is None else {name: read}
    if get_origin(kind) is dict and _is_struct(get_args(kind)[1]):
        named = _as_mapping(value, place, note) or {}
        read_all = {str(key): read_struct(get_args(kind)[1], named[key], (*place, str(key)), note) for key in named}
        return {name: {key: entry for key, entry in read_all.items() if entry is not None}}
    try:
        return {name: msgspec.convert(_understood(value, kind), kind)}
    except msgspec.ValidationError as error:
        note(place, _in_words(error, kind))
        return {}


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _as_mapping(value: Any, place: Place, note: Note) -> Tree | None:
    if isinstance(value, EnvironmentText):
        value = _as_yaml(value)
    if value is None:
        return {}
    if not isinstance(value, dict):
        note(place, f"Expected keys and values, got {type(value).__name__}")
        return None
    return value


def _understood(value: Any, kind: Any) -> Any:
    if isinstance(value, list):
        # Only an element that came from the environment is not yet what it shall be.
        return [str(each) if isinstance(each, EnvironmentText) else each for each in value]
    if isinstance(value, EnvironmentText):
        return str(value) if _is_text(inspect.type_info(kind)) else _as_yaml(value)
    return value


def _is_text(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return any(_is_text(each) for each in kind.types)
    return isinstance(kind, inspect.StrType | inspect.LiteralType)


def _as_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return str(text)


def _in_words(error: msgspec.ValidationError, kind: Any) -> str:
    """msgspec's message without its quotes and path. It never quotes the value."""
    if kind == HttpUrl:
        return "Expected an address such as http://127.0.0.1:11434/v1"
    choices = [each for each in (kind, *get_args(kind)) if get_origin(each) is Literal]
    if choices:
        return f"Expected one of {', '.join(map(str, get_args(choices[0])))}"
    what, _, where = str(error).replace("`", "").partition(" - at ")
    return f"at {where.lstrip('$')}: {what}" if where else what


def _unknown(key: str, fields: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, fields, n=1)
    return "no such setting" + (f"; did you mean {near[0]}?" if near else "")
