"""The rule of the code map: ARCHITECTURE.md lists the folders that exist, each with what lives there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

SECTION = re.compile(r"^## Code map\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^- `([\w./-]+)/` - (\S.*)$", re.MULTILINE)


class NoCodeMap(ValueError):
    """The page has no section `## Code map`."""


def mapped(page: str) -> list[str]:
    """The folders that the page's code map lists. Raises NoCodeMap."""
    section = SECTION.search(page)
    if section is None:
        raise NoCodeMap("ARCHITECTURE.md needs a section '## Code map'")
    return [path for path, _ in ENTRY.findall(section[1])]


def untrue(page: str, packages: Iterable[str], folders: Iterable[str]) -> list[str]:
    """What the map gets wrong. `packages` must be on it; of the other `folders` that exist, any may be."""
    listed = Counter(mapped(page))
    packages, folders = set(packages), set(folders)
    return [
        *(f"{path} is missing" for path in sorted(packages - listed.keys())),
        *(f"{path} does not exist" for path in sorted(listed.keys() - packages - folders)),
        *(f"{path} is listed {times} times" for path, times in listed.items() if times > 1),
    ]
