"""Writes one reply's frames: numbered, merged when busy, checked against loss, and gathered for the commit."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import structlog

from ops.runtime.bus import Bus, BusUnavailable
from schemas import codec, subjects
from schemas.openai import ToolCall
from schemas.replies import Checkpoint, Delta, Frame, Snapshot, Start, measure
from workers.generation.pace import Pace
from workers.generation.takeover import Prefix
from workers.storage.turns import Claimed

log = structlog.get_logger()

CHECKPOINT_SECONDS = 2.0


class Piece:
    """Something the model said that has not travelled yet; pieces of one kind and choice are merged."""

    __slots__ = ("choice", "logprobs", "reasoning", "refusal", "text", "tool_calls")

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

    def takes(self, other: Piece) -> bool:
        """Merge the other in, where both are plain words of the same kind."""
        if self.choice != other.choice or self.tool_calls or other.tool_calls or self.logprobs or other.logprobs:
            return False
        if bool(self.text) != bool(other.text) or bool(self.reasoning) != bool(other.reasoning):
            return False
        self.text += other.text
        self.reasoning += other.reasoning
        self.refusal += other.refusal
        return True


class ReplyWriter:
    """One owner's writing of one reply. `index`, `length` and `digest` go on from what was shown before.

    `said` holds this round's events, those of a dead owner included: what is committed is what was shown.
    """

    def __init__(self, bus: Bus, claimed: Claimed, pace: Pace, prefix: Prefix) -> None:
        self.turn_id, self.epoch = claimed.turn_id, claimed.epoch
        self.index, self.length, self.digest = prefix.index, prefix.length, prefix.digest
        self.said: list[Delta] = list(prefix.said)
        self.began_at = prefix.index
        self.first_said_at: float | None = None
        self._bus, self._pace = bus, pace
        self._subject = subjects.reply(claimed.shard, claimed.turn_id)
        self._pending: list[Piece] = []
        self._order = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self._checked_at = asyncio.get_running_loop().time()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reconnects = bus.reconnects
        self._doubtful = False

    async def start(self, attempt: int) -> None:
        """Say that this owner begins."""
        await self._publish(Start(self.epoch, self.index, attempt))

    async def say(self, pieces: Sequence[Piece]) -> None:
        """Show what the model said. The first never waits; later ones wait for company as long as the pace says."""
        for piece in pieces:
            if not (self._pending and self._pending[-1].takes(piece)):
                self._pending.append(piece)
        now = asyncio.get_running_loop().time()
        wait = self._sent_at + self._pace.window - now
        if wait <= 0:
            await self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._flush_later)

    async def flush(self) -> None:
        """Send what is pending, in order."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        async with self._order:
            pending, self._pending = self._pending, []
            now = asyncio.get_running_loop().time()
            for piece in pending:
                await self._publish(self._numbered(piece))
            if pending:
                self._sent_at = now
                self.first_said_at = self.first_said_at or time.time()
        if now - self._checked_at > CHECKPOINT_SECONDS:
            self._checked_at = now
            self._spawn(self._checkpoint())

    async def heal(self) -> None:
        """Before the end: send everything again where any of it may have been lost on the way."""
        if self._timer is not None:
            self._timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._doubtful or self._bus.reconnects != self._reconnects:
            await self._snapshot()

    def text(self, choice: int = 0) -> str:
        """What this round has said to one choice, pending words included."""
        said = [delta.text for delta in self.said if delta.choice == choice]
        return "".join(said) + "".join(piece.text for piece in self._pending if piece.choice == choice)

    def _numbered(self, piece: Piece) -> Delta:
        self.index += 1
        said = (piece.text, piece.choice, piece.reasoning, piece.tool_calls, piece.refusal, piece.logprobs)
        delta = Delta(self.epoch, self.index, *said)
        self.length, self.digest = measure(delta, self.length, self.digest)
        self.said.append(delta)
        return delta

    async def _publish(self, frame: Frame) -> None:
        try:
            await self._bus.publish(self._subject, codec.encode(frame))
        except BusUnavailable:
            self._doubtful = True  # kept in `said`; the snapshot brings it

    async def _checkpoint(self) -> None:
        """Ask the stream whether it has all; a cluster that elects a leader drops frames and tells nobody."""
        frame = Checkpoint(self.epoch, self.index, self.length, self.digest)
        before = self._bus.reconnects
        try:
            await self._bus.store(self._subject, codec.encode(frame), msg_id=None, budget=1.0)
        except BusUnavailable:
            self._doubtful = True
            return
        if self._doubtful or self._reconnects != before:
            await self._snapshot()

    async def _snapshot(self) -> None:
        before = self._bus.reconnects
        frame = Snapshot(self.epoch, self.index, list(self.said))
        await self._bus.store(self._subject, codec.encode(frame), msg_id=None)
        self._doubtful, self._reconnects = False, before
        log.info("snapshot_sent", turn_id=self.turn_id, events=len(frame.deltas))

    def _flush_later(self) -> None:
        self._timer = None
        self._spawn(self.flush())

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, work: Any) -> None:
        with contextlib.suppress(BusUnavailable):
            await work

    def abandon(self) -> None:
        """Say nothing more: someone else owns the reply, or the process stops."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
