"""What readers were shown of a round whose owner did not come to commit it."""

from __future__ import annotations

from typing import Any

import msgspec

from ops.runtime.bus import Bus
from ops.runtime.replay import replay
from schemas import codec, subjects
from schemas.ids import part_of
from schemas.replies import Delta, Frame, Gap, ReplyFold
from schemas.streams import REPLIES
from schemas.turns import TurnState
from workers.storage.turn_rows import NewMessage, TurnEnd


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The reply's measure so far, and what of it came after the last committed round."""

    index: int
    length: int
    digest: int
    said: tuple[Delta, ...]


async def shown_after(bus: Bus, turn_id: str, end: TurnEnd, fence: int) -> Shown:
    """What the stream shows before our fence, up to the first hole in it. Raises BusUnavailable."""
    fold, said = ReplyFold(), list[Delta]()
    decode = codec.decoder(Frame).decode
    async for sequence, data in replay(bus, REPLIES.name, subjects.reply(end.shard, turn_id)):
        if sequence >= fence:
            break
        try:
            events = fold.feed(decode(data))
        except Gap:
            continue
        said += [event for event in events if isinstance(event, Delta) and event.index > end.shown_index]
    return Shown(index=fold.index, length=fold.length, digest=fold.digest, said=tuple(said))


def shown_messages(turn_id: str, end: TurnEnd, shown: Shown) -> list[NewMessage]:
    """One message a choice, in the words that readers saw."""
    return [
        NewMessage(
            id=part_of(turn_id, "reply", end.round, choice),
            role="assistant",
            content="".join(delta.text for delta in shown.said if delta.choice == choice),
            metadata=_metadata(end, shown, choice),
        )
        for choice in sorted({delta.choice for delta in shown.said})
    ]


def _metadata(end: TurnEnd, shown: Shown, choice: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {"first_index": end.shown_index + 1, "state": TurnState.FAILED.value}
    if choice:
        metadata["choice"] = choice
    for kind in ("reasoning", "refusal"):
        if words := "".join(getattr(delta, kind) for delta in shown.said if delta.choice == choice):
            metadata[kind] = words
    return metadata
