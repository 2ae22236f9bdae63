"""Pure: frames of one reply, wherever they come from, joined into what its reader is shown; a gap holds up the rest."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas import codec
from schemas.records import StoredReply
from schemas.replies import Delta, End, Failed, Frame, Gap, Progress, ReplyFold, Snapshot, Start

Shown = Delta | Progress | Start | End


class Differs(Exception):
    """What PostgreSQL has is not what was shown: nothing can honestly follow."""


class Joining:
    """All that one reader has had of a reply, and the frames that wait behind a gap."""

    def __init__(self) -> None:
        self.fold = ReplyFold()
        self.behind: list[bytes] = []
        """Frames behind a gap, kept until it is closed."""
        self.unread = False
        """Whether words may be missing of which no frame tells: the stream is still to be read."""
        self._decode = codec.decoder(Frame).decode

    @property
    def has_gap(self) -> bool:
        """Whether something is missing, or may be."""
        return self.unread or bool(self.behind)

    @property
    def has_end_behind(self) -> bool:
        """Whether the reply has ended behind the gap."""
        return any(isinstance(self._decode(data), End) for data in self.behind)

    def heard(self, frames: Sequence[bytes], *, reading: bool = False) -> list[Shown]:
        """What live frames show. `reading`: while the stream is read back.

        A failure told from outside does not know how many words there are: who has still to read them keeps it back.
        """
        return self._join(frames, reading or self.unread, reading)

    def read_back(self, frames: Sequence[bytes]) -> list[Shown]:
        """What frames from the stream show: before each of them came all there was, but for what is lost."""
        self.unread = False
        return self._join(frames, False, True)

    def stored(self, page: StoredReply) -> list[Shown]:
        """What a page of PostgreSQL's shows, and what it frees of the frames behind a gap. Raises Differs.

        Who has seen what was lost since is told no more than how the reply has ended.
        """
        fold, before, shown = self.fold, self.fold.index, list[Shown]()
        frames = [self._decode(data) for data in page.frames]
        if fold.stranded:
            frames = [frame for frame in frames if isinstance(frame, End)]
        for frame in frames:
            if isinstance(frame, Snapshot):
                # What is committed holds whoever owns the turn by now.
                frame = msgspec.structs.replace(frame, epoch=max(frame.epoch, fold.epoch, fold.fenced))
            try:
                shown += fold.feed(frame)
            except Gap:
                raise Differs from None
        if page.more and fold.index == before:
            raise Differs
        behind, self.behind = self.behind, []
        return shown + self.heard(behind)

    def let_go(self) -> None:
        """Forget what is behind the gap, but not that it is there: the stream has it."""
        del self.behind[1:]

    def _join(self, frames: Sequence[bytes], hold: bool, reading: bool) -> list[Shown]:
        """What these frames show, and then what they free of those behind the gap. `hold`: keep a failure back."""
        fold = self.fold
        shown: list[Shown] = []
        while True:
            stood = (fold.index, fold.epoch)
            for data in frames:
                frame = self._decode(data)
                if hold and isinstance(frame, Failed):
                    self.behind.append(data)
                    continue
                try:
                    shown += fold.feed(frame)
                except Gap:
                    if not fold.stranded or isinstance(frame, End):
                        self.behind.append(data)
            if self.unread and any(isinstance(event, Delta) for event in shown):
                self.unread = False  # shown without a gap: whatever came before it is there
            if not self.behind or stood == (fold.index, fold.epoch):
                return shown
            frames, self.behind, hold = self.behind, [], reading or self.unread
