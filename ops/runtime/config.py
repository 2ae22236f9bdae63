"""The configuration of one process: YAML over environment over default, read once, checked whole, and never changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ops.runtime import personalities
from ops.runtime.checks import across_fields, of_engines, of_keys, of_personalities
from ops.runtime.layers import Sheet, variables
from ops.runtime.models import NO_PROVIDER, ModelCatalogue, catalogue_from, provider_of
from ops.runtime.personalities import PersonalitySet
from ops.runtime.redaction import mask, names_secret
from ops.runtime.settings import (
    DEFAULTS_OF,
    NAMESPACES,
    PLAIN_VARIABLES,
    Api,
    App,
    ConfigError,
    Context,
    Engines,
    Observability,
    Security,
    Storage,
    Tools,
)  # fmt: skip
from ops.runtime.yaml_files import EnvironmentText, Place, Tree, read_yaml, replace_references

__all__ = ["Config", "ConfigError", "load"]

PACKAGED = Path(__file__).parents[1] / "config"
PER_PROCESS = (("app", "instance"), ("observability", "health_port"))
"""What may differ between processes of the same configuration."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a process is told before it starts."""

    app: App
    api: Api
    engines: Engines
    context: Context
    tools: Tools
    storage: Storage
    observability: Observability
    security: Security
    personalities: PersonalitySet
    version: str
    """Short hash of all that is effective, secrets and what is a single process's own apart: config_version."""
    summary: dict[str, Any]
    """All that is effective, by namespace; a secret is `set` or `unset`."""
    catalogue: ModelCatalogue | None
    keys_missing: tuple[str, ...] = ()

    @property
    def models(self) -> ModelCatalogue:
        """The models that may be used.

        Raises ConfigError where no model server is configured or its key is missing: a process that talks to models
        asks at its start, and the others need no key.
        """
        if self.catalogue is None:
            raise ConfigError(NO_PROVIDER)
        if self.keys_missing:
            raise ConfigError(*self.keys_missing)
        return self.catalogue


def load(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Config:
    """Read and check the configuration.

    `environ` is this process's environment unless given, `folder` is COZY_CONFIG_DIR or the packaged `ops/config`.
    Raises ConfigError with every mistake found; none of its lines quotes a value that may be a secret.
    """
    environ = os.environ if environ is None else environ
    folder = folder or Path(environ.get("COZY_CONFIG_DIR") or PACKAGED)
    problems = [*_strange_files(folder), *_strange_variables(environ)]
    reader = _Reader(environ, folder, problems)
    sections = reader.sections()
    people = reader.personalities()
    if problems or people is None:
        raise ConfigError(*problems)
    return _checked(sections, people, reader, environ)


class _Reader:
    """Reads one folder and one environment; keeps each namespace's sheet so that later checks can name a source."""

    def __init__(self, environ: Mapping[str, str], folder: Path, problems: list[str]) -> None:
        self._environ = environ
        self._folder = folder
        self._problems = problems
        self.sheets: dict[str, Sheet] = {}
        self.unset_keys: list[str] = []

    def sections(self) -> dict[str, Any]:
        """The settings of each namespace, None where they are wrong: the problems say so."""
        self.sheets = {namespace: self._sheet(namespace) for namespace in NAMESPACES}
        app = self.sheets["app"].read(App)
        defaults = DEFAULTS_OF[app.environment] if app else {}
        sections: dict[str, Any] = {}
        for namespace, kind in NAMESPACES.items():
            sheet = self.sheets[namespace]
            sheet.lay_below(defaults.get(namespace, {}))
            sections[namespace] = sheet.read(kind)
            self._problems += dict.fromkeys(sheet.problems)
        return sections

    def personalities(self) -> PersonalitySet | None:
        try:
            return personalities.load(self._folder / "personalities")
        except ConfigError as error:
            self._problems += error.problems
            return None

    def _sheet(self, namespace: str) -> Sheet:
        sheet = Sheet(namespace)
        sheet.lay_below(self._file(namespace, sheet))
        tree, names = variables(namespace, self._environ)
        sheet.lay_below(tree, lambda place: names.get(place) or sheet.in_file(place))
        tree, names = self._plain(namespace)
        sheet.lay_below(tree, lambda place: names.get(place) or sheet.in_file(place))
        if namespace == "engines" and not sheet.sets("providers"):
            tree, names = provider_of(self._environ)
            sheet.lay_below({"providers": tree}, lambda place: names.get(place[1:]) or sheet.in_file(place))
        return sheet

    def _file(self, namespace: str, sheet: Sheet) -> Tree:
        path = self._folder / f"{namespace}.yaml"
        if not path.exists():
            return {}

        def note(place: Place, message: str) -> None:
            # Which process needs the key of a model server is known later; most do not.
            if place[0] == "providers" and place[-1] == "api_key" and "not set" in message:
                self.unset_keys.append(f"{sheet.in_file(place)}: {message}")
            else:
                sheet.note(place, message)

        try:
            return replace_references(read_yaml(path, path.name), self._environ, note)
        except ConfigError as error:
            self._problems += error.problems
            return {}

    def _plain(self, namespace: str) -> tuple[Tree, dict[Place, str]]:
        found = {name: key for name, (space, key) in PLAIN_VARIABLES.items() if space == namespace}
        tree = {key: EnvironmentText(self._environ[name]) for name, key in found.items() if self._environ.get(name)}
        return tree, {(key,): name for name, key in found.items()}


def _checked(sections: dict[str, Any], people: PersonalitySet, reader: _Reader, environ: Mapping[str, str]) -> Config:
    engines: Engines = sections["engines"]
    names = {space: sheet.name_of for space, sheet in reader.sheets.items()}
    catalogue = catalogue_from(engines, environ.get("OPENAI_MODEL")) if engines.providers else None
    problems = across_fields(sections, names)
    if catalogue:
        problems += of_engines(catalogue, names["engines"]) or of_personalities(people, catalogue)
    if problems:
        raise ConfigError(*problems)
    missing = reader.unset_keys or (of_keys(catalogue, people, names["engines"]) if catalogue else [])
    summary = _summary(sections, people, catalogue)
    return Config(
        **sections, personalities=people, version=_version_of(summary), summary=summary,
        catalogue=catalogue, keys_missing=tuple(missing),
    )  # fmt: skip


def _strange_files(folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"{folder}: there is no such folder; COZY_CONFIG_DIR names the folder of the configuration"]
    known = {f"{namespace}.yaml" for namespace in NAMESPACES}
    strange = sorted(path.name for path in folder.glob("[!.]*.y*ml") if path.name not in known)
    return [f"{name}: not a file of settings; there are {', '.join(sorted(known))}" for name in strange]


def _strange_variables(environ: Mapping[str, str]) -> list[str]:
    # Kubernetes injects COZY_PORT and the like for a service called cozy: only the double underscore is ours.
    found = [name for name in environ if name.upper().startswith("COZY_") and "__" in name]
    strange = sorted(name for name in found if name[5:].partition("__")[0].lower() not in NAMESPACES)
    return [f"{name}: no such setting; the namespaces are {', '.join(NAMESPACES)}" for name in strange]


def _summary(sections: dict[str, Any], people: PersonalitySet, catalogue: ModelCatalogue | None) -> dict[str, Any]:
    summary = {space: _redacted(msgspec.to_builtins(section)) for space, section in sections.items()}
    default = catalogue.default if catalogue else None
    summary["default_model"] = f"{default.provider}/{default.model}" if default else None
    summary["personalities"] = {each.id: each.version for each in people.all()}
    return summary


def _redacted(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _redacted(below, key) for key, below in value.items()}
    if names_secret(name):
        return "set" if value else "unset"
    return mask(value) if isinstance(value, str) else value


def _version_of(summary: dict[str, Any]) -> str:
    own = dict(PER_PROCESS)
    shared = {
        space: {key: each for key, each in values.items() if own.get(space) != key} if space in own else values
        for space, values in summary.items()
    }
    return hashlib.sha256(msgspec.json.encode(shared, order="deterministic")).hexdigest()[:12]
