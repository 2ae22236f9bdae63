"""The one delivery policy: what happens to a message when its work succeeds, must wait, is not ours, or is poison."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from ops.runtime import metrics
from ops.runtime.bus import BusUnavailable
from workers.storage.database import AWAY

log = structlog.get_logger()

BACK_OFF = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds before the next try, by the number of tries so far; the last repeats."""

CLAIM_AFTER = 0.05
"""Seconds beyond the end of an owner's lease after which its turn is tried again."""

E = TypeVar("E")


class Fenced(Exception):
    """Someone newer owns this turn. JetStream does not fence acks: ours would delete the new owner's message."""


class Later(Exception):
    """Not now, and for no fault of the message: deliver it again after `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__(delay)
        self.delay = delay


INFRASTRUCTURE = (
    *AWAY,
    BusUnavailable,
    nats.errors.Error,
    TimeoutError,
    ConnectionError,
)
"""What is away comes back: these tries are unlimited and never counted against the turn."""


def is_away(error: BaseException) -> bool:
    """Whether nothing but infrastructure is to blame; of work done side by side, for each failure of it."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_away, error.exceptions))
    return isinstance(error, INFRASTRUCTURE)


def back_off(tries: int) -> float:
    """Seconds to wait after this many tries."""
    return BACK_OFF[min(tries, len(BACK_OFF)) - 1]


async def deliver(
    message: Msg,
    stage: str,
    event: E,
    work: Callable[[E], Awaitable[None]],
    poisoned: Callable[[E, Exception, int], Awaitable[bool]],
) -> None:
    """Do the work of one message and settle it.

    Done: acknowledged. `Later` and infrastructure errors: given back with a delay. `Fenced`: left alone. Cancelled (the
    process stops): given back at once. Anything else counts as a failure of the turn itself; `poisoned` is told, with
    the number of deliveries, and says whether it was the last one (then the turn has been failed and the message is
    dropped).
    """
    tries, began = message.metadata.num_delivered, time.monotonic()
    if tries > 1:
        metrics.redelivered(stage)
    outcome = "done"
    try:
        await work(event)
        await message.ack()
    except Later as later:
        outcome = "later"
        await message.nak(delay=later.delay)
    except Fenced:
        outcome = "fenced"
        log.warning("fenced", stage=stage)
    except asyncio.CancelledError:
        metrics.worked(stage, "handed_over")
        await message.nak()
        raise
    except Exception as error:
        if is_away(error):
            outcome = "infrastructure"
            log.warning("work_postponed", stage=stage, error=type(error).__name__, tries=tries)
            await message.nak(delay=back_off(tries))
        else:
            outcome = "failed"
            log.exception("work_failed", stage=stage, tries=tries)
            await _settle_failure(message, event, error, poisoned)
    metrics.worked(stage, outcome, time.monotonic() - began)


async def _settle_failure(
    message: Msg, event: E, error: Exception, poisoned: Callable[[E, Exception, int], Awaitable[bool]]
) -> None:
    try:
        last = await poisoned(event, error, message.metadata.num_delivered)
    except Exception as uncounted:
        if not is_away(uncounted):
            log.exception("failure_not_counted")
        last = False
    if last:
        await message.ack()
    else:
        await message.nak(delay=back_off(message.metadata.num_delivered))


def unreadable(message: Msg, stage: str, error: msgspec.DecodeError) -> None:
    """A message that no version of ours wrote. It is kept as a dead letter by the caller and can never succeed."""
    log.error("message_unreadable", stage=stage, bytes=len(message.data), error=type(error).__name__)
