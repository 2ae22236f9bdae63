"""Reads back what a stream has stored of one subject, in batches, without making a consumer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec
import nats.errors

from ops.runtime.bus import Bus, BusUnavailable

BATCH = 1000
WAIT_SECONDS = 2.0


async def replay(bus: Bus, stream: str, subject: str, start: int = 1) -> AsyncIterator[tuple[int, bytes]]:
    """Every stored message of the subject from sequence `start` on, as (sequence, data), oldest first.

    By JetStream's batched direct get (NATS ADR-31). Raises BusUnavailable where the stream does not answer in time.
    """
    inbox = bus.client.new_inbox()
    subscription = await bus.client.subscribe(inbox)
    question = f"$JS.API.DIRECT.GET.{stream}"
    try:
        more = True
        while more:
            body = {"seq": start, "next_by_subj": subject, "batch": BATCH}
            await bus.client.publish(question, msgspec.json.encode(body), reply=inbox)
            more = False
            while True:
                message = await subscription.next_msg(WAIT_SECONDS)
                headers = message.headers or {}
                status = headers.get("Status")
                if status is None:
                    start = int(headers["Nats-Sequence"]) + 1
                    yield start - 1, message.data
                    continue
                if status not in ("204", "404"):
                    raise BusUnavailable(f"direct get answered {status}")
                more = status == "204" and int(headers.get("Nats-Num-Pending", "0")) > 0
                break
    except (TimeoutError, nats.errors.Error) as error:
        raise BusUnavailable(type(error).__name__) from error
    finally:
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()
