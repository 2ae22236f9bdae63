"""What all answers have in common: a time limit, patience with a lost connection, and faults instead of exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import psycopg
import structlog

from schemas import codec
from schemas.faults import EngineInternal, Fault, StorageUnavailable
from schemas.records import Answer
from workers.storage.database import AWAY

T = TypeVar("T")
Work = Callable[[], Awaitable[Any]]

log = structlog.get_logger()

QUESTION_SECONDS = 2.0
"""What a question may take. Whoever asks waits a little longer, so a slow answer is still heard as a fault."""
LOST_PAUSE = 0.05
LOST = ("08", "57P")
"""SQLSTATE classes of a connection that is no more: connection exceptions, and a server going down or coming up."""

_left_behind: set[asyncio.Task[Any]] = set()


async def answer(question: str, work: Work, limit: float = QUESTION_SECONDS) -> Answer:
    """The value that `work` gives, or the fault that it means, within `limit` seconds. Raises nothing of its own."""
    try:
        value = await within(limit, _while_connected(question, work))
    except Fault as fault:
        return Answer(fault=fault.record)
    except (psycopg.Error, TimeoutError) as error:
        _log_database_error(question, error)
        return Answer(fault=StorageUnavailable().record)
    except Exception:
        log.exception("question_failed", question=question)
        return Answer(fault=EngineInternal().record)
    return Answer(value=msgspec.Raw(codec.encode(value)))


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; TimeoutError after so many seconds.

    Cancelled work is not waited for: psycopg spends seconds on asking a frozen server to stop a query.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        raise TimeoutError
    finally:
        if not task.done():
            _leave_behind(task)


def _leave_behind(task: asyncio.Task[Any]) -> None:
    _left_behind.add(task)
    task.add_done_callback(_end_of_left_behind)
    task.cancel()


def _end_of_left_behind(task: asyncio.Task[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # told already, as a timeout


async def _while_connected(question: str, work: Work) -> Any:
    """Ask again when the connection broke: after a restart of the server the pool holds dead ones. Every question may
    be asked twice."""
    while True:
        try:
            return await work()
        except AWAY as error:
            if not _is_lost(error):
                raise
            log.warning("database_connection_lost", question=question, sqlstate=error.sqlstate)
        await asyncio.sleep(LOST_PAUSE)


def _is_lost(error: psycopg.Error) -> bool:
    return error.sqlstate is None or error.sqlstate.startswith(LOST)


def _log_database_error(question: str, error: psycopg.Error | TimeoutError) -> None:
    facts = {"question": question, "error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None)}
    if isinstance(error, (*AWAY, TimeoutError)):
        log.warning("storage_unavailable", **facts)
    else:
        log.error("query_refused", **facts)
