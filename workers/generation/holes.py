"""What a stream may have lost of a reply: finding it out, and the frames that heal it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from ops.runtime.bus import Bus, BusUnavailable
from schemas import codec
from schemas.replies import Delta, Snapshot
from schemas.streams import REPLIES

log = structlog.get_logger()

ASK_SECONDS = 1.0


class _Config(msgspec.Struct, frozen=True):
    num_replicas: int = 1


class _State(msgspec.Struct, frozen=True):
    subjects: dict[str, int] = {}


class _Info(msgspec.Struct, frozen=True):
    config: _Config = _Config()
    state: _State = _State()


_read = msgspec.json.Decoder(_Info).decode


class Stock:
    """One a process: what the stream holds.

    Only of a stream with copies: while these elect a leader, frames are dropped and nobody is told. A single server
    tells by its broken connection.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._alone = False

    async def held(self, subject: str) -> int | None:
        """How many messages of this subject there are; None where there is no need to know, or nobody answers."""
        if self._alone:
            return None
        question = msgspec.json.encode({"subjects_filter": subject})
        try:
            info = _read(await self._bus.ask(f"$JS.API.STREAM.INFO.{REPLIES.name}", question, timeout=ASK_SECONDS))
        except (BusUnavailable, msgspec.DecodeError) as error:
            log.warning("stock_unknown", error=type(error).__name__)
            return None
        self._alone = info.config.num_replicas == 1
        return None if self._alone else info.state.subjects.get(subject, 0)


class Tally:
    """How many frames one writer has sent, against how many the stream holds.

    `before` is how many others sent, None where nobody counted. A fenced owner may add to what is held: then a hole of
    as many frames stays unseen here, and a reader has to ask for what it misses.
    """

    def __init__(self, before: int | None) -> None:
        self.sent = 0
        self._before = before

    def lacks(self, held: int, sent: int) -> bool:
        """Whether some of the first `sent` frames are missing, or may be."""
        if self._before is None:
            return True
        self._before = max(self._before, held - self.sent)
        return held - self._before < sent

    def healed(self, held: int | None) -> None:
        """Count from here on: what is missing now has been sent again."""
        self._before = None if held is None else held - self.sent


def snapshots(epoch: int, deltas: Sequence[Delta], limit: int) -> list[bytes]:
    """Snapshot frames of these events, each no longer than `limit` bytes, to be sent in this order.

    An event that is longer by itself gets a frame of its own.
    """
    frame = codec.encode(Snapshot(epoch, deltas[-1].index, list(deltas)))
    if len(frame) <= limit or len(deltas) == 1:
        return [frame]
    half = len(deltas) // 2
    return [*snapshots(epoch, deltas[:half], limit), *snapshots(epoch, deltas[half:], limit)]
