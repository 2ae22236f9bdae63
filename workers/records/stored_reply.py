"""Builds a turn's reply from what was stored of it: the frames that a reader folds."""

from __future__ import annotations

from collections.abc import Sequence

from schemas import codec
from schemas.records import StoredReply
from schemas.replies import Delta, Frame, Snapshot
from schemas.turns import ENDS
from workers.storage.turns_read import RepliedTurn

PAGE_BYTES = 256 * 1024
"""Of words in one page: far below the bus's limit, and no more than a gateway should hold for a slow client."""


def stored_reply(turn: RepliedTurn, after: int = 0) -> StoredReply:
    """The reply's events behind `after` as frames, event for event as they were shown: whoever saw a part of it can
    go on from there. An answer is one page.

    Of a turn that has not ended: the rounds that are committed, and no end. The stream has the rest of its words.
    """
    said = [delta for round in turn.reply for delta in codec.decode(round, list[Delta]) if delta.index > after]
    page = _page(said)
    more = len(page) < len(said)
    ended = turn.end.state in ENDS
    frames: list[Frame] = []
    if page:
        # A snapshot, since its owners' epochs are long over: a reader takes from it what it has not seen.
        frames.append(Snapshot(turn.end.epoch if ended else page[-1].epoch, page[-1].index, page))
    if ended and not more:
        frames.append(turn.end.frame())
    return StoredReply(
        turn_id=turn.turn_id,
        session_id=turn.end.session_id,
        personality_id=turn.personality_id,
        model=turn.model,
        shard=turn.end.shard,
        created=turn.created,
        state=turn.end.state,
        ignored_messages=turn.ignored_messages,
        frames=[codec.encode(frame) for frame in frames],
        more=more,
    )


def _page(said: Sequence[Delta]) -> list[Delta]:
    """The first events that fit a page, one at least."""
    size = 0
    for position, delta in enumerate(said):
        size += len(codec.encode(delta))
        if size > PAGE_BYTES and position:
            return list(said[:position])
    return list(said)
