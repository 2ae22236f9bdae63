"""Taking over a reply whose owner died: fence it off, read what was shown, and say whether it can honestly go on."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec
import structlog

from ops.runtime.bus import Bus, BusUnavailable
from ops.runtime.replay import replay
from schemas import codec, subjects
from schemas.openai import CHARACTERS_PER_TOKEN, ChatRequest
from schemas.replies import Delta, Fence, Frame, Gap, Progress, ReplyFold, measure
from schemas.streams import REPLIES
from workers.storage.turn_rows import Claimed

log = structlog.get_logger()

READS = 5
READ_AGAIN = 0.3
"""Seconds between two reads of a stream that does not show our own fence yet: a copy of it lags."""
ATTEMPTS = 4
"""Owners of one reply who may fail to read it whole, before it counts as lost."""
ASK_SECONDS = 1.0


class Prefix(msgspec.Struct, frozen=True, kw_only=True):
    """What readers have seen of a reply when this owner begins. `said`: this round's part of it."""

    index: int
    length: int
    digest: int
    said: tuple[Delta, ...] = ()
    lost: bool = False
    """Some of what was shown is not in the stream any more: nobody can go on from it."""
    frames: int | None = None
    """How many frames the stream held up to our fence, where that was counted."""
    first_said_at: float | None = None
    """When the stream got the first of `said`, in Unix seconds by its server's clock, where that could be learned."""

    @classmethod
    def of(cls, claimed: Claimed) -> Prefix:
        """What earlier rounds committed: the beginning of a fresh round."""
        # The first owner of a first round knows that nothing was sent before.
        frames = 0 if claimed.epoch == 1 else None
        return cls(index=claimed.shown_index, length=claimed.shown_length, digest=claimed.shown_digest, frames=frames)

    @property
    def text(self) -> str | None:
        """The words this round has shown, where there are any."""
        return "".join(delta.text for delta in self.said) or None

    @property
    def given(self) -> int:
        """How many tokens of the words shown the model is given to go on from."""
        return sum(delta.tokens for delta in self.said if delta.text)

    @property
    def tokens(self) -> int:
        """How many tokens were shown in all."""
        return sum(delta.tokens for delta in self.said)


class _Message(msgspec.Struct, frozen=True):
    time: datetime


class _Stored(msgspec.Struct, frozen=True):
    message: _Message


_read_stored = msgspec.json.Decoder(_Stored).decode


async def read_prefix(bus: Bus, claimed: Claimed) -> Prefix:
    """What the dead owner showed. The fence comes first: what it still publishes after it is void for every reader.

    Raises BusUnavailable where the stream does not answer, or does not show what it has received.
    """
    fence = await fence_off(bus, claimed)
    for tries in range(1, READS + 1):
        prefix = await read_up_to(bus, claimed, fence)
        if prefix is not None:
            log.info("taken_over", attempt=claimed.attempts, events=len(prefix.said), lost=prefix.lost)
            return prefix
        log.warning("prefix_short", attempt=claimed.attempts, tries=tries)
        await asyncio.sleep(READ_AGAIN)
    if claimed.attempts < ATTEMPTS:
        raise BusUnavailable("the stream does not show its own last message")
    return msgspec.structs.replace(Prefix.of(claimed), lost=True)


async def fence_off(bus: Bus, claimed: Claimed) -> int:
    """Void what owners before us publish from now on; where in the stream that is."""
    subject = subjects.reply(claimed.shard, claimed.turn_id)
    message_id = f"{claimed.turn_id}.fence.{claimed.epoch}"
    return (await bus.store(subject, codec.encode(Fence(claimed.epoch)), msg_id=message_id)).seq


async def read_up_to(bus: Bus, claimed: Claimed, fence: int) -> Prefix | None:
    """What was shown before our fence; None where the stream, or the copy of it that answered, ends before it."""
    fold, said, heard_of, frames = ReplyFold(), list[Delta](), claimed.shown_index, 0
    first: int | None = None
    decode = codec.decoder(Frame).decode
    async for sequence, data in replay(bus, REPLIES.name, subjects.reply(claimed.shard, claimed.turn_id)):
        frames += 1
        if sequence >= fence:
            return Prefix(
                index=fold.index,
                length=fold.length,
                digest=fold.digest,
                said=tuple(said),
                lost=fold.stranded or fold.index < heard_of,
                frames=frames,
                first_said_at=await _stored_at(bus, first) if first is not None else None,
            )
        frame = decode(data)
        try:
            shown = fold.feed(frame)
        except Gap:
            heard_of = max(heard_of, 0 if isinstance(frame, Fence | Progress) else frame.index)
            continue
        said += [event for event in shown if isinstance(event, Delta) and event.index > claimed.shown_index]
        if said and first is None:
            first = sequence
    return None


async def _stored_at(bus: Bus, sequence: int) -> float | None:
    """When the stream got a message, in Unix seconds; None where it does not say."""
    question = msgspec.json.encode({"seq": sequence})
    try:
        answer = await bus.ask(f"$JS.API.STREAM.MSG.GET.{REPLIES.name}", question, timeout=ASK_SECONDS)
        return _read_stored(answer).message.time.timestamp()
    except (BusUnavailable, msgspec.DecodeError) as error:
        log.warning("first_word_not_timed", error=type(error).__name__)
        return None


def unless_forgotten(prefix: Prefix, kept: str | None) -> Prefix:
    """The prefix, lost where the stream has forgotten words that PostgreSQL has kept: a power cut takes the stream's
    unsynced end, and what readers saw of it must not be said again in other words. What was kept belongs to it.
    """
    shown = "".join(delta.text for delta in prefix.said if delta.choice == 0)
    if not kept or shown.startswith(kept):
        return prefix
    log.warning("prefix_forgotten", shown=len(shown), kept=len(kept))
    if not kept.startswith(shown):
        return msgspec.structs.replace(prefix, lost=True)
    rest = kept[len(shown) :]
    tokens = len(rest) // CHARACTERS_PER_TOKEN + 1
    forgotten = Delta(0, prefix.index + 1, rest, tokens=tokens)  # of no living owner: it is read from PostgreSQL only
    length, digest = measure(forgotten, prefix.length, prefix.digest)
    said = (*prefix.said, forgotten)
    return msgspec.structs.replace(prefix, lost=True, said=said, index=forgotten.index, length=length, digest=digest)


def may_continue(request: ChatRequest, prefix: Prefix, resume: str | None) -> bool:
    """Whether the model can go on from the words shown so far without a reader noticing more than a pause.

    Reasoning that was shown stays shown; the model thinks anew, in silence, and goes on with the words.
    """
    if prefix.lost:
        return False
    if not prefix.said:
        return True
    if any(delta.refusal or delta.tool_calls for delta in prefix.said):
        return False
    # What the model must say as a whole, or what is told of each token, cannot be said in two halves.
    if request.response_format is not None or request.logprobs or (request.n or 1) > 1:
        return False
    words = prefix.text
    if words is None:
        return True
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if resume == "prefill":
        return not any(_may_straddle(words, stop) for stop in stops)
    # A model that is asked in words opens with words of its own, and a stop string among them would end the reply.
    return resume == "continue" and not stops


def _may_straddle(words: str, stop: str) -> bool:
    """Whether a stop string may have begun in these words: its end alone, in the next, would not be recognised."""
    return any(words.endswith(stop[:length]) for length in range(1, len(stop)))
