"""Writes one reply's frames: numbered, merged when busy, checked against loss, and gathered for the commit."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from ops.runtime.bus import Bus, BusUnavailable
from schemas import codec, subjects
from schemas.openai import ToolCall
from schemas.replies import Checkpoint, Delta, Failed, Finished, Frame, Start, measure
from workers.generation.holes import Stock, Tally, snapshots
from workers.generation.pace import Pace
from workers.generation.takeover import Prefix
from workers.storage.turn_rows import Claimed

log = structlog.get_logger()

CHECKPOINT_SECONDS = 2.0
WANTED_SECONDS = 0.5
"""Between two snapshots that readers ask for."""
ROOM = 1024
"""Bytes of the bus's limit that a frame leaves to its headers."""


class Piece:
    """Something the model said that has not travelled yet; pieces of one kind and choice are merged."""

    __slots__ = ("choice", "logprobs", "reasoning", "refusal", "text", "tokens", "tool_calls")

    def __init__(
        self,
        choice: int,
        text: str = "",
        reasoning: str = "",
        refusal: str = "",
        tool_calls: list[ToolCall] | None = None,
        logprobs: Any = None,
    ) -> None:
        self.choice, self.text, self.reasoning, self.refusal = choice, text, reasoning, refusal
        self.tool_calls, self.logprobs = tool_calls, logprobs
        self.tokens = 1

    def takes(self, other: Piece) -> bool:
        """Merge the other in, where both are plain words of the same kind."""
        if self.choice != other.choice or self.tool_calls or other.tool_calls or self.logprobs or other.logprobs:
            return False
        if bool(self.text) != bool(other.text) or bool(self.reasoning) != bool(other.reasoning):
            return False
        self.text += other.text
        self.reasoning += other.reasoning
        self.refusal += other.refusal
        self.tokens += other.tokens
        return True


class ReplyWriter:
    """One owner's writing of one reply. `index`, `length` and `digest` go on from what was shown before.

    `said` holds this round's events, those of a dead owner included: what is committed is what was shown.
    """

    def __init__(self, bus: Bus, claimed: Claimed, pace: Pace, prefix: Prefix, stock: Stock | None = None) -> None:
        self.turn_id, self.epoch = claimed.turn_id, claimed.epoch
        self.index, self.length, self.digest = prefix.index, prefix.length, prefix.digest
        self.said: list[Delta] = list(prefix.said)
        self.began_at = prefix.index
        self.first_said_at: float | None = None
        self._bus, self._pace = bus, pace
        self._subject = subjects.reply(claimed.shard, claimed.turn_id)
        self._pending: list[Piece] = []
        self._latest: dict[int, Piece] = {}
        self._order = asyncio.Lock()
        self._checked_at = asyncio.get_running_loop().time()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reconnects = bus.reconnects
        self._doubtful = False
        self._begins = True
        self._rest: list[Delta] = []
        self._stock, self._tally = stock, Tally(prefix.frames)
        self._healed_at = float("-inf")

    async def take_over(self, attempt: int) -> None:
        """Say that another owner goes on from here. The owner of a fresh round says so with its first words."""
        self._begins = False
        await self._publish(Start(self.epoch, self.index, attempt))

    async def say(self, pieces: Sequence[Piece]) -> None:
        """Show what the model said. The first never waits; later ones wait for company as long as the pace says."""
        self.add(pieces)
        if self._pace.window and self.first_said_at is not None:
            self._pace.board(self)
        else:
            await self.flush()

    def add(self, pieces: Sequence[Piece]) -> None:
        """Put these behind what is pending."""
        for piece in pieces:
            # Choices come interleaved; each is merged with its own, whose order is the only one that counts.
            latest = self._latest.get(piece.choice)
            if latest is None or not latest.takes(piece):
                self._pending.append(piece)
                self._latest[piece.choice] = piece

    async def flush(self) -> None:
        """Send what is pending, in order."""
        async with self._order:
            pending, self._pending = self._pending, []
            self._latest.clear()
            for piece in pending:
                await self._publish(self._numbered(piece))
        if self.first_said_at is None and pending:
            self.first_said_at = time.time()
        now = asyncio.get_running_loop().time()
        if now - self._checked_at > CHECKPOINT_SECONDS:
            self._checked_at = now
            self._spawn(self._checkpoint())

    async def seal(self) -> None:
        """Number what is left: the reply is whole, and what is committed now is what `tell` sends.

        The last words travel with the end, after the commit; of a busy process's replies that saves a third of all
        frames, and a paced reply's last word has been flushed long before.
        """
        await self._quiet()
        pending, self._pending = self._pending, []
        self._latest.clear()
        self._rest = [self._numbered(piece) for piece in pending]

    async def heal(self) -> None:
        """Send everything again where any of it may have been lost on the way. Raises BusUnavailable."""
        await self._quiet()
        if not self.sure:
            await self._snapshot()

    async def tell(self, end: Finished | Failed) -> None:
        """Send what is left and the end, in that order. Raises BusUnavailable."""
        before = self._bus.reconnects
        await self.heal()
        for delta in self._rest:
            await self._publish(delta)
        if self._doubtful:
            await self._snapshot()
        message_id = f"{self.turn_id}.end.{end.epoch}"
        await self._bus.store(self._subject, codec.encode(end), msg_id=message_id)
        if self._bus.reconnects != before:
            # An outage fell in between, and may have taken the words but not the end.
            await self._snapshot()
            await self._bus.store(self._subject, codec.encode(end), msg_id=f"{message_id}.again")

    def wanted(self) -> None:
        """A reader misses a frame that the stream does not have: send everything again, unless that was just done."""
        now = asyncio.get_running_loop().time()
        if self.said and now - self._healed_at >= WANTED_SECONDS:
            self._healed_at = now
            self._spawn(self._snapshot())

    def shown(self) -> Prefix:
        """What readers have seen, as the beginning of what the same owner says next."""
        return Prefix(index=self.index, length=self.length, digest=self.digest, said=tuple(self.said))

    async def _quiet(self) -> None:
        self._pace.leave(self)
        async with self._order:  # a departure under way may be sending our words
            if self._tasks:
                await asyncio.wait(self._tasks)

    @property
    def sure(self) -> bool:
        """Whether nothing speaks against all that was said having reached the stream."""
        return not self._doubtful and self._bus.connected and self._bus.reconnects == self._reconnects

    def text(self, choice: int = 0, *, pending: bool = True) -> str:
        """What this round has said to one choice, words that wait to be sent included or not."""
        said = [delta.text for delta in self.said if delta.choice == choice]
        waiting = [piece.text for piece in self._pending if piece.choice == choice and pending]
        return "".join((*said, *waiting))

    def _numbered(self, piece: Piece) -> Delta:
        self.index += 1
        said = (piece.text, piece.choice, piece.reasoning, piece.tool_calls, piece.refusal, piece.logprobs)
        delta = Delta(self.epoch, self.index, *said, tokens=piece.tokens, begins=self._begins)
        self._begins = False
        self.length, self.digest = measure(delta, self.length, self.digest)
        self.said.append(delta)
        return delta

    async def _publish(self, frame: Frame) -> None:
        self._tally.sent += 1
        try:
            await self._bus.publish(self._subject, codec.encode(frame))
        except BusUnavailable:
            self._doubtful = True  # kept in `said`; the snapshot brings it
        except asyncio.CancelledError:
            self._doubtful = True
            raise

    async def _store(self, data: bytes, budget: float) -> None:
        self._tally.sent += 1
        await self._bus.store(self._subject, data, msg_id=None, budget=budget)

    async def _checkpoint(self) -> None:
        """Ask the stream whether it has all; a cluster that elects a leader drops frames and tells nobody."""
        frame = Checkpoint(self.epoch, self.index, self.length, self.digest)
        before, sent = self._bus.reconnects, self._tally.sent + 1
        try:
            await self._store(codec.encode(frame), 1.0)
        except BusUnavailable:
            self._doubtful = True
            return
        held = await self._stock.held(self._subject) if self._stock else None
        lacks = held is not None and self._tally.lacks(held, sent)
        if self._doubtful or self._reconnects != before or lacks:
            await self._snapshot()

    async def _snapshot(self) -> None:
        before, events = self._bus.reconnects, list(self.said)
        if not events:
            return
        for frame in snapshots(self.epoch, events, self._bus.client.max_payload - ROOM):
            await self._store(frame, 10.0)
        self._doubtful, self._reconnects = False, before
        self._tally.healed(await self._stock.held(self._subject) if self._stock else None)
        log.info("snapshot_sent", turn_id=self.turn_id, events=len(events))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(BusUnavailable):
            await work

    def abandon(self) -> None:
        """Say nothing more: someone else owns the reply, or the process stops."""
        self._pace.leave(self)
        for task in self._tasks:
            task.cancel()
