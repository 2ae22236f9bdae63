"""Taking over a reply whose owner died: fence it off, read what was shown, and say whether it can honestly go on."""

from __future__ import annotations

import msgspec
import structlog

from ops.runtime.bus import Bus
from ops.runtime.replay import replay
from schemas import codec, subjects
from schemas.openai import ChatRequest
from schemas.replies import Delta, Fence, Frame, Gap, Progress, ReplyFold
from schemas.streams import REPLIES
from workers.storage.turn_rows import Claimed

log = structlog.get_logger()


class Prefix(msgspec.Struct, frozen=True, kw_only=True):
    """What readers have seen of a reply when this owner begins. `said`: this round's part of it."""

    index: int
    length: int
    digest: int
    said: tuple[Delta, ...] = ()
    lost: bool = False
    """Some of what was shown is not in the stream any more: nobody can go on from it."""

    @classmethod
    def of(cls, claimed: Claimed) -> Prefix:
        """What earlier rounds committed: the beginning of a fresh round."""
        return cls(index=claimed.shown_index, length=claimed.shown_length, digest=claimed.shown_digest)

    @property
    def text(self) -> str | None:
        """The words this round has shown, where there are any."""
        return "".join(delta.text for delta in self.said) or None


async def read_prefix(bus: Bus, claimed: Claimed) -> Prefix:
    """What the dead owner showed. The fence comes first: what it still publishes after it is void for every reader.

    Raises BusUnavailable where the stream does not answer.
    """
    subject = subjects.reply(claimed.shard, claimed.turn_id)
    fence = codec.encode(Fence(claimed.epoch))
    receipt = await bus.store(subject, fence, msg_id=f"{claimed.turn_id}.fence.{claimed.epoch}")
    fold, said, heard_of = ReplyFold(), [], claimed.shown_index
    decode = codec.decoder(Frame).decode
    async for sequence, data in replay(bus, REPLIES.name, subject):
        if sequence >= receipt.seq:
            break
        frame = decode(data)
        try:
            shown = fold.feed(frame)
        except Gap:
            heard_of = max(heard_of, 0 if isinstance(frame, Fence | Progress) else frame.index)
            continue
        said += [event for event in shown if isinstance(event, Delta) and event.index > claimed.shown_index]
    lost = fold.stranded or fold.index < heard_of
    log.info("taken_over", attempt=claimed.attempts, events=len(said), lost=lost)
    return Prefix(index=fold.index, length=fold.length, digest=fold.digest, said=tuple(said), lost=lost)


def may_continue(request: ChatRequest, prefix: Prefix, resume: str | None) -> bool:
    """Whether the model can go on from the words shown so far without a reader noticing more than a pause."""
    if prefix.lost:
        return False
    if not prefix.said:
        return True
    plain = all(not delta.reasoning and not delta.refusal and not delta.tool_calls for delta in prefix.said)
    bound = request.response_format is not None or request.logprobs or (request.n or 1) > 1 or request.stop
    return resume == "prefill" and plain and not bound
