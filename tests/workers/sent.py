"""What stages have put on the bus, read back without taking it."""

from __future__ import annotations

from typing import TypeVar

from ops.runtime.bus import Bus
from ops.runtime.replay import replay
from schemas import codec, subjects
from schemas.replies import Frame
from schemas.streams import DEAD_LETTERS, REPLIES, TURNS

T = TypeVar("T")


async def events(bus: Bus, event: str, kind: type[T], shard: int = 0) -> list[T]:
    """The events that wait for a stage, oldest first."""
    await bus.flush()
    return [codec.decode(data, kind) async for _, data in replay(bus, TURNS.name, subjects.turn_event(event, shard))]


async def frames(bus: Bus, turn_id: str, shard: int = 0) -> list[Frame]:
    """What the stream has of a reply, oldest first: all that this bus has sent, and that others have flushed."""
    # The server stores what was published in its own time, and in order: a receipt means that all before it is there.
    await bus.store(subjects.reply(shard, "until-here"), b"", msg_id=None)
    decode = codec.decoder(Frame).decode
    return [decode(data) async for _, data in replay(bus, REPLIES.name, subjects.reply(shard, turn_id))]


async def dead_letters(bus: Bus, stage: str) -> list[bytes]:
    """What a stage has set aside, oldest first."""
    await bus.flush()
    return [data async for _, data in replay(bus, DEAD_LETTERS.name, subjects.dead(stage))]
