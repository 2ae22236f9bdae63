"""Reads what streams hold, without taking it from those it waits for."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.client import Client

from ops.commands._servers import CannotRun
from schemas import codec, subjects
from schemas.streams import DEAD_LETTERS
from schemas.turns import TurnArrival, TurnCompleted, TurnPrepared, TurnToolsCalled

WAIT_SECONDS = 3.0
BATCH = 500
EVENTS: dict[str, tuple[str, Any]] = {
    "context_fetch": (subjects.TURN_REQUESTED, TurnArrival),
    "generation": (subjects.TURN_PREPARED, TurnPrepared),
    "tool_execution": (subjects.TURN_TOOLS_CALLED, TurnToolsCalled),
    "memory_writeback": (subjects.TURN_COMPLETED, TurnCompleted),
}
"""What each stage works on: the event's name and its type."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A message in a stream. `at`: by the server's clock."""

    sequence: int
    subject: str
    at: datetime
    data: bytes


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a stage set aside. `event` is None where it cannot be read."""

    sequence: int
    stage: str
    at: datetime
    bytes: int
    event: Any

    @property
    def turn_id(self) -> str | None:
        """Whose it is, where that can be read."""
        return self.event.turn_id if self.event is not None else None


async def read(client: Client, stream: str, subject: str, limit: int, start: int = 1) -> list[Stored]:
    """The first `limit` messages of these subjects from a sequence on. Raises nats errors, and CannotRun."""
    found: list[Stored] = []
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    more = True
    while more and len(found) < limit:
        batch = min(BATCH, limit - len(found))
        body = {"seq": start, "next_by_subj": subject, "batch": batch, "max_bytes": 4 << 20}
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(body), reply=inbox)
        while (headers := (message := await subscription.next_msg(WAIT_SECONDS)).headers or {}).get("Status") is None:
            found.append(_stored(headers, message.data))
            start = found[-1].sequence + 1
        if headers["Status"] not in ("204", "404"):
            raise CannotRun(f"the stream {stream} cannot be read ({headers['Status']})")
        more = headers["Status"] == "204" and int(headers.get("Nats-Num-Pending", "0")) > 0
    await subscription.unsubscribe()
    return found


def _stored(headers: dict[str, str], data: bytes) -> Stored:
    return Stored(
        sequence=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        at=msgspec.convert(headers["Nats-Time-Stamp"], datetime, strict=False),
        data=data,
    )


async def dead_letters(client: Client, limit: int) -> list[Letter]:
    """What the stages set aside, oldest first."""
    return [letter_of(stored) for stored in await read(client, DEAD_LETTERS.name, f"{subjects.DEAD}.>", limit)]


def letter_of(stored: Stored) -> Letter:
    """A dead letter, read as its stage reads it."""
    stage = stored.subject.removeprefix(f"{subjects.DEAD}.")
    event = None
    if stage in EVENTS:
        with contextlib.suppress(msgspec.DecodeError):  # that may be why it is here
            event = codec.decoder(EVENTS[stage][1]).decode(stored.data)
    return Letter(sequence=stored.sequence, stage=stage, at=stored.at, bytes=len(stored.data), event=event)
