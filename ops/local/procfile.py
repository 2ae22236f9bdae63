"""The Procfile (Heroku's format) and how many of each of its processes to run."""

import re
import shlex
from collections.abc import Mapping

RELEASE = "release"
_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")
_POOL = re.compile(r"([A-Za-z0-9_-]+)=(\d+)")


class ProcfileError(ValueError):
    """A line of the Procfile, or a wish for its pools, cannot be understood. The message names it."""


def parse_procfile(text: str) -> dict[str, list[str]]:
    """Each process's name and command, in the order of the file. Empty lines and # comments are left out.

    Commands are split as a shell would split them, but no shell runs them: `$NAME` stays as it is written.
    """
    commands: dict[str, list[str]] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        name, command = _parse_line(line, number)
        if name in commands:
            raise ProcfileError(f"Procfile line {number}: {name!r} is there already")
        commands[name] = command
    return commands


def _parse_line(line: str, number: int) -> tuple[str, list[str]]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProcfileError(f"Procfile line {number}: expected `name: command`, got {line!r}")
    try:
        return match[1], shlex.split(match[2])
    except ValueError as error:
        raise ProcfileError(f"Procfile line {number}: {error}") from None


def parse_pools(text: str) -> dict[str, int]:
    """`generation=2,gateway=1` as numbers."""
    pools: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _POOL.fullmatch(part)
        if match is None:
            raise ProcfileError(f"expected `name=number` (as in generation=2), got {part!r}")
        pools[match[1]] = int(match[2])
    return pools


def instances(commands: Mapping[str, list[str]], pools: Mapping[str, int]) -> dict[str, list[str]]:
    """What to run: one process for each command but `release`, or as many as `pools` says.

    The second of a pool is called `name.2`. A pool that the Procfile does not have is a ProcfileError.
    """
    names = [name for name in commands if name != RELEASE]
    if unknown := [name for name in pools if name not in names]:
        raise ProcfileError(f"no process {unknown[0]!r} in the Procfile, which has {', '.join(names)}")
    return {
        name if number == 1 else f"{name}.{number}": commands[name]
        for name in names
        for number in range(1, pools.get(name, 1) + 1)
    }
