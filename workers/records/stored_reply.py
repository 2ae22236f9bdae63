"""Builds the reply of an ended turn from what was stored of it: the frames that a reader folds."""

from __future__ import annotations

from collections.abc import Iterator

from schemas import codec
from schemas.records import StoredReply
from schemas.replies import Delta, Frame, Snapshot
from schemas.turns import ENDS
from workers.storage.turns_read import RepliedTurn


def stored_reply(turn: RepliedTurn) -> StoredReply:
    """The reply as frames, event for event as it was shown: whoever saw a part of it can go on from there.

    A turn that has not ended has none: the stream has its words.
    """
    return StoredReply(
        turn_id=turn.turn_id,
        session_id=turn.end.session_id,
        personality_id=turn.personality_id,
        model=turn.model,
        shard=turn.end.shard,
        created=turn.created,
        state=turn.end.state,
        frames=[codec.encode(frame) for frame in _frames(turn)],
    )


def _frames(turn: RepliedTurn) -> Iterator[Frame]:
    if turn.end.state in ENDS:
        said = [delta for round in turn.reply for delta in codec.decode(round, list[Delta])]
        # A snapshot, since its owners' epochs are long over: a reader takes from it what it has not seen.
        yield Snapshot(turn.end.epoch, turn.end.shown_index, said)
        yield turn.end.frame()
