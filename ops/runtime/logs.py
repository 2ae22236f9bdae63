"""Logs: one line of JSON per event on standard output, ours and the libraries', with no word, key or token in it.

`log = structlog.get_logger()` anywhere, and `log.info("turn_accepted", session_id=...)`: an event and its values.
Bind a turn's ids with `structlog.contextvars`. What a value may be is decided here, once, for every process.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import MutableMapping
from typing import Any, BinaryIO

import msgspec
import structlog
from structlog.contextvars import get_contextvars

from ops.runtime.config import Config
from ops.runtime.failures import describe
from ops.runtime.library_logs import LibraryHandler
from ops.runtime.metrics import LOG_LINES_LOST
from ops.runtime.redaction import REDACTED, Rule, mask_line, mask_person, rule_of

log = structlog.get_logger()

MAX_TEXT = 1000
"""Characters of one text; the rest is cut. A longer one is not a value but a document."""
MAX_CONTENT = 10_000
MAX_DEPTH = 6
_PLAIN = (int, float, bool, type(None))
_SAYS_ONLY_WHETHER = (None, True, False, "set", "unset")
_OPEN, _NEVER = Rule.OPEN, Rule.NEVER
_encode = msgspec.json.Encoder().encode


class Output:
    """Where lines go. A line that cannot be written is counted, not raised: a full disk must not end a turn."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        """Write one whole line."""
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            LOG_LINES_LOST.inc()

    debug = info = warning = error = critical = write


class Renderer:
    """The last and only step of a line: what is bound and what was said become one line of JSON."""

    def __init__(self, process: str, *, instance: str = "", log_content: bool = False) -> None:
        self._who = {"process": process} | ({"instance": instance} if instance else {})
        self._log_content = log_content
        self._second, self._second_text = 0, ""

    def __call__(self, _logger: Any, method: str, said: MutableMapping[str, Any]) -> bytes:
        """structlog's processor. `said` has the event and its values."""
        event, error = said.pop("event", ""), said.pop("exc_info", None)
        fields = {"timestamp": self._now(), "level": method, "event": self._fit("event", event, 0), **self._who}
        for name, value in {**get_contextvars(), **said}.items():
            # What most values are goes the short way: this runs for every request.
            short = type(value) is str and len(value) <= MAX_TEXT and rule_of(name) is _OPEN
            fields[name] = value if short else self._fit(name, value, 0)
        if error:
            fields["exception"] = _exception(error)
        return mask_line(_json(fields))

    def _now(self) -> str:
        """RFC 3339 in UTC with milliseconds. The second's part is made once a second."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1000):03d}Z"

    def _fit(self, name: str, value: Any, depth: int) -> Any:
        rule = rule_of(name)
        if rule is _OPEN:
            return value if type(value) in _PLAIN else self._readable(value, depth)
        if rule is _NEVER:
            return value if value in _SAYS_ONLY_WHETHER else REDACTED
        if type(value) in _PLAIN:
            return value
        return self._content(value, depth) if self._log_content else REDACTED

    def _readable(self, value: Any, depth: int) -> Any:
        """Texts, and lists and mappings of them. Of anything else only its type: structs are full of people's words."""
        if isinstance(value, str):
            return str(value) if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}…"
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, BaseException):
            return describe(value)
        if depth >= MAX_DEPTH:
            return "…"
        if isinstance(value, dict):
            return {str(key): self._fit(str(key), below, depth + 1) for key, below in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._fit("", below, depth + 1) for below in value]
        return f"<{type(value).__name__}>"

    def _content(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return mask_person(value[:MAX_CONTENT])
        if isinstance(value, dict) and depth < MAX_DEPTH:
            return {
                mask_person(str(key)): REDACTED if rule_of(str(key)) is _NEVER else self._content(below, depth + 1)
                for key, below in value.items()
            }
        if isinstance(value, list | tuple) and depth < MAX_DEPTH:
            return [self._content(below, depth + 1) for below in value]
        return self._readable(value, depth)


def _exception(error: Any) -> dict[str, Any] | None:
    """What `exc_info` stands for: an exception, its triple, or True for the one being handled."""
    if isinstance(error, tuple):
        error = error[1]
    if not isinstance(error, BaseException):
        error = sys.exc_info()[1]
    return None if error is None else describe(error)


def _json(fields: dict[str, Any]) -> bytes:
    try:
        return _encode(fields) + b"\n"
    except (UnicodeEncodeError, OverflowError, TypeError, msgspec.MsgspecError):
        # Half an emoji, for one. The line must come, if in a plainer form.
        text = json.dumps(fields, default=lambda value: f"<{type(value).__name__}>", skipkeys=True, ensure_ascii=False)
        return text.encode("utf-8", "replace") + b"\n"


def configure(process: str, config: Config, stream: BinaryIO | None = None) -> None:
    """Send every log line of this process, libraries' and crashes' included, to `stream` (standard output).

    Ours from `log_level` on, libraries' from `warning` on. To be called once, before anything logs.
    """
    settings = config.observability
    output = Output(stream or sys.stdout.buffer)
    renderer = Renderer(process, instance=config.app.instance, log_content=settings.log_content)
    structlog.configure(
        processors=[renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.log_level.upper())),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=True,
    )
    LibraryHandler(lambda level, said: output.write(renderer(None, level, said))).take_over()
    _hear_crashes()


def _hear_crashes() -> None:
    """Python would print an exception nobody caught with its message, which may quote what a person said."""

    def crashed(_kind: Any, error: BaseException, _trace: Any) -> None:
        if isinstance(error, KeyboardInterrupt):
            return
        log.critical("crashed", exc_info=error)

    sys.excepthook = crashed
    threading.excepthook = lambda args: log.critical("thread_crashed", exc_info=args.exc_value)
    sys.unraisablehook = lambda args: log.error("exception_ignored", exc_info=args.exc_value)
