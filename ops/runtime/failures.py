"""Exceptions as log fields: what kind, where in our code, from what; never a library's words, which quote people's."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

from ops.runtime.settings import ConfigError
from schemas.faults import Fault

ROOT = Path(__file__).parents[2]
OURS = ("gateway", "workers", "schemas", "ops", "migrations", "tests")
MAX_PLACES = 12
MAX_DEPTH = 4
_PREFIXES = tuple(f"{ROOT / folder}/" for folder in OURS)
_FACTS = ("sqlstate", "errno", "status_code")
_SHORT = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def describe(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """What a log line may say of an exception.

    Its message only if it is a Fault or ConfigError, whose words are ours; of others the kind, the codes that
    libraries attach, our own frames (innermost last), its cause, and the members of a group.
    """
    kind = type(error)
    said: dict[str, Any] = {"type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")}
    if isinstance(error, Fault | ConfigError):
        said["message"] = str(error)
    said |= {name: fact for name in _FACTS if (fact := _fact(error, name)) is not None}
    if places := _places(error):
        said["at"] = places
    if depth < MAX_DEPTH:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            said["cause"] = describe(cause, depth + 1)
        if isinstance(error, BaseExceptionGroup):
            said["members"] = [describe(member, depth + 1) for member in error.exceptions[:MAX_DEPTH]]
    return said


def shortened(path: str) -> str:
    """A file's path without what is only this machine's: from our root, or from its package."""
    if path.startswith(_PREFIXES):
        return path[len(str(ROOT)) + 1 :]
    return path.rpartition("site-packages/")[2].rpartition("/lib/")[2]


def _places(error: BaseException) -> list[str]:
    walked = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = [(code, line) for code, line in walked if code.co_filename.startswith(_PREFIXES)]
    return [f"{shortened(code.co_filename)}:{line}:{code.co_name}" for code, line in ours[-MAX_PLACES:]]


def _fact(error: BaseException, name: str) -> int | str | None:
    fact = getattr(error, name, None)
    if isinstance(fact, int) or (isinstance(fact, str) and _SHORT.fullmatch(fact)):
        return fact
    return None
