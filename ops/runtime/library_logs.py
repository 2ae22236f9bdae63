"""What libraries log, in our form. Their texts may quote anything, so only what is certainly their own stays."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from ops.runtime.failures import describe, shortened


class LibraryHandler(logging.Handler):
    """Hands every record of the standard library's logging on as `library_message`, with its level and values.

    A text is handed on only where it stands in the library's source as a constant; an f-string, or a text made
    elsewhere, is not, and `at` says where to look it up. Of a text's arguments numbers stay.
    """

    def __init__(self, hand_on: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__(logging.WARNING)
        self._hand_on = hand_on

    def take_over(self) -> None:
        """Become the only handler of this process, also for loggers that had their own."""
        logging.root.handlers = [self]
        logging.root.setLevel(logging.WARNING)
        for logger in list(logging.root.manager.loggerDict.values()):
            if isinstance(logger, logging.Logger):
                logger.handlers.clear()
                logger.propagate = True
                logger.setLevel(logging.NOTSET)
        logging.captureWarnings(True)

    def emit(self, record: logging.LogRecord) -> None:
        """logging's hook."""
        said: dict[str, Any] = {
            "event": "library_message",
            "logger": record.name,
            "at": f"{shortened(record.pathname)}:{record.lineno}:{record.funcName}",
        }
        if _is_constant(record):
            said["said"] = _filled(record)
        if record.exc_info and record.exc_info[1]:
            said["exc_info"] = record.exc_info[1]
        self._hand_on(record.levelname.lower(), said)


def _is_constant(record: logging.LogRecord) -> bool:
    """Whether the text is a constant of the code that logged it, whose frame is still on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == record.pathname and code.co_name == record.funcName:
            return record.msg in code.co_consts
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _filled(record: logging.LogRecord) -> str:
    text = str(record.msg)
    if not isinstance(record.args, tuple) or not record.args:
        return text
    try:
        return text % tuple(map(_argument, record.args))
    except (TypeError, ValueError):
        return text


def _argument(value: object) -> object:
    if isinstance(value, int | float):
        return value
    return describe(value)["type"] if isinstance(value, BaseException) else "…"
