"""The controls of a request: read from its headers, its marks and the environment, and checked."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ops.local.scripted.problems import Problem

_MAX_TOKENS = 100_000
_MAX_KEYS = 10_000
_HEADER = "x-scripted-"
_ENVIRONMENT = "SCRIPTED_"
_SHORT = {"gap": "gap-ms", "ttft": "ttft-ms"}
_PAIR = re.compile(r"\s*([a-z0-9_-]+)=('[^']*'|[^\s'\]]+)")
_MARK = re.compile(r"\[\[((?:\s*[a-z0-9_-]+=(?:'[^']*'|[^\s'\]]+))+)\s*\]\]")

Milliseconds = Annotated[float, Meta(ge=0, le=86_400_000)]
Count = Annotated[int, Meta(ge=0, le=_MAX_TOKENS)]
Seam = Literal["none", "preamble", "repeat", "reword", "midword"]


class Controls(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """How one request is to be answered; the package's docstring has the meaning of each."""

    gap_ms: Milliseconds = 0.0
    ttft_ms: Milliseconds = 0.0
    tokens: Count | None = None
    reasoning: Count = 0
    call: str = ""
    fail: Annotated[str, Meta(pattern="^(none|hang|cut|malformed|[45][0-9][0-9])$")] = "none"
    fail_after: Count = 3
    fail_times: Count | None = None
    fail_key: str | None = None
    retry_after_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 1000
    split_utf8: bool = False
    usage: Literal["normal", "none"] = "normal"
    seam: Seam = "none"
    vary: bool = False

    @property
    def fail_status(self) -> int | None:
        """The status to fail with, if the failure is one."""
        return int(self.fail) if self.fail.isdigit() else None


_NAMES = frozenset(Controls.__struct_encode_fields__)


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The controls set as SCRIPTED_...; other variables of that beginning are not ours. ValueError names a bad one."""
    found = {}
    for name in _NAMES:
        variable = _ENVIRONMENT + name.upper().replace("-", "_")
        if variable in environment:
            found[name] = environment[variable]
    try:
        msgspec.convert(found, Controls, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"a SCRIPTED_ variable is wrong: {error}") from error
    return found


def read(headers: Mapping[str, str], last_user_message: str, defaults: Mapping[str, str]) -> Controls:
    """The request's controls. Problem (400) names the header that is unknown or wrong."""
    given = {name[len(_HEADER) :]: value for name, value in headers.items() if name.startswith(_HEADER)}
    if not given and not defaults and "[[" not in last_user_message:
        return _PLAIN
    try:
        return msgspec.convert({**defaults, **_marks(last_user_message), **given}, Controls, strict=False)
    except msgspec.ValidationError as error:
        name = str(error).rpartition("`$.")[2].rstrip("`")
        param = _HEADER + name if name in _NAMES else _HEADER.rstrip("-")
        raise Problem(400, f"Wrong control: {error}", param=param) from error


def without_marks(text: str) -> str:
    """`text` as it was meant to be read."""
    if "[[" not in text:
        return text
    return _MARK.sub(lambda mark: "" if _pairs(mark.group(1)) else mark.group(0), text).strip()


def _marks(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for mark in _MARK.finditer(text):
        found.update(_pairs(mark.group(1)))
    return found


def _pairs(inside: str) -> dict[str, str]:
    """The controls within one pair of brackets; nothing if any is unknown: then it is just text."""
    pairs = {}
    for name, value in _PAIR.findall(inside):
        plain = name.replace("_", "-")
        pairs[_SHORT.get(plain, plain)] = value[1:-1] if value.startswith("'") else value
    return pairs if pairs.keys() <= _NAMES else {}


class Failures:
    """Counts the failures already given, for `fail-times`."""

    def __init__(self) -> None:
        self._given: OrderedDict[str, int] = OrderedDict()

    def judge(self, controls: Controls, last_user_message: str) -> Controls:
        """The controls to obey: those given, or without the failure once it was given often enough."""
        if controls.fail == "none" or controls.fail_times is None:
            return controls
        key = controls.fail_key if controls.fail_key is not None else "text:" + last_user_message
        given = self._given.pop(key, 0)
        self._given[key] = given + 1
        if len(self._given) > _MAX_KEYS:
            self._given.popitem(last=False)
        return controls if given < controls.fail_times else msgspec.structs.replace(controls, fail="none")

    def clear(self) -> None:
        """Forget all counts."""
        self._given.clear()


def parts(text: str) -> Iterable[tuple[str, str]]:
    """The (name, arguments) of a `call` control; arguments are as written, "" where there are none."""
    for one in text.split(";;"):
        name, _, arguments = one.strip().partition(" ")
        if name:
            yield name, arguments.strip()


_PLAIN = Controls()
