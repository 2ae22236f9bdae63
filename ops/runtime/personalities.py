"""The personalities of this installation, one YAML file each, read and checked together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from ops.runtime.layers import read_struct
from ops.runtime.settings import ConfigError
from ops.runtime.yaml_files import Place, read_yaml
from schemas.personalities import Personality

DEFAULT = "default"
"""The personality that answers who names none. Every installation has it."""


class PersonalitySet(msgspec.Struct, frozen=True):
    """All personalities of one moment, by id. A turn keeps the set it began with."""

    by_id: dict[str, Personality]

    def get(self, personality_id: str) -> Personality | None:
        """The personality of this id, or None."""
        return self.by_id.get(personality_id)

    def all(self) -> list[Personality]:
        """Every personality: the default first, then by id."""
        return sorted(self.by_id.values(), key=lambda each: (each.id != DEFAULT, each.id))


def load(folder: Path) -> PersonalitySet:
    """Read every `*.yaml` of the folder.

    Raises ConfigError with one line for each mistake, `personalities/tutor.yaml: model.temperature: ...`: then none
    of them is to be used, and a set that was live stays so.
    """
    by_id: dict[str, Personality] = {}
    problems: list[str] = []
    for path in sorted(folder.glob("[!.]*.y*ml")):
        try:
            personality = _read(path)
        except ConfigError as error:
            problems += error.problems
        else:
            if personality.id in by_id:
                problems.append(f"personalities/{path.name}: id: {personality.id} is another file's already")
            by_id[personality.id] = personality
    if DEFAULT not in by_id and not any(f"/{DEFAULT}.y" in problem for problem in problems):
        problems.append(f"personalities/{DEFAULT}.yaml: missing; every installation needs this personality")
    if problems:
        raise ConfigError(*problems)
    return PersonalitySet(by_id)


def _read(path: Path) -> Personality:
    name = f"personalities/{path.name}"
    tree = read_yaml(path, name)
    problems: list[str] = []

    def note(place: Place, message: str) -> None:
        problems.append(": ".join(filter(None, (name, ".".join(place), message))))

    if "version" in tree:
        note(("version",), "no such setting; the version is made from the file")
    personality = read_struct(Personality, tree, (), note)
    if personality is not None and personality.id != path.stem:
        note(("id",), f"Expected {path.stem}, as the file is named")
    if problems or personality is None:
        raise ConfigError(*problems)
    return msgspec.structs.replace(personality, version=_version_of(personality))


def _version_of(personality: Personality) -> str:
    # Of what it says, not of the file's bytes: a comment or a line break changes nothing for a turn.
    return hashlib.sha256(msgspec.json.encode(personality)).hexdigest()[:12]
