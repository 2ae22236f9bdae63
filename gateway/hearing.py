"""What a reader hears live, within bounds; how it waits; and that it says it is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

import nats.errors

from ops.runtime.bus import Bus, BusUnavailable, Listener
from schemas import subjects

BUFFERED_BYTES = 256 * 1024
"""What is kept for a client that reads slowly. Beyond it the live frames are let go, and read back from the stream."""
FRAME_BYTES = 64
"""What a frame costs in memory beside its own bytes."""
PRESENT_AFTER = 0.3
"""Seconds after which a reader of a fresh turn can be asked whether it is there."""
AT_ONCE = 256
"""Frames handed out at once: what is made of them for a client is several times as large."""


class Hearing:
    """One reader's ear on one reply."""

    def __init__(self, bus: Bus, turn_id: str, shard: int) -> None:
        self.left = False
        """Whether nobody is listening any more."""
        self._bus = bus
        self._live, self._asked = subjects.live(shard, turn_id), subjects.listeners(turn_id)
        self._moving = False
        self._live_ear: Listener | None = None
        self._asked_ear: Listener | None = None
        self._heard: list[bytes] = []
        self._bytes = 0
        self._let_go = False
        self._waiter: asyncio.Future[bool] | None = None
        self._until = 0.0
        self._present_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, *, late: bool = False) -> None:
        """Begin to hear, and to answer whoever asks whether anybody does: at once only where the turn may be `late`,
        for nobody asks in a turn's first second, and most replies do not last longer."""
        self._live_ear = await self._bus.listen(self._live, self._hear)
        if late:
            await self._be_present()
        else:
            self._present_at = asyncio.get_running_loop().time() + PRESENT_AFTER

    async def _be_present(self) -> None:
        ear = await self._bus.take(self._asked, self._say_here)
        if self.left and not self._moving:
            await ear.close()
        else:
            self._asked_ear = ear

    async def close(self) -> None:
        """Stop hearing."""
        self.leave()
        self._moving = False
        ears, self._live_ear, self._asked_ear = (self._live_ear, self._asked_ear), None, None
        for ear in ears:
            if ear is not None:
                await ear.close()

    def leave(self, *, moving: bool = False) -> None:
        """Nobody is listening any more: end a wait under way.

        `moving`: its client is on the way to another gateway; until `close`, whoever asks is told that it listens.
        """
        if not self.left:
            self.left, self._moving = True, moving
        self.wake_up()

    async def stay_present(self, seconds: float) -> None:
        """Hear no more; where its client is on the way to another gateway, say for so long that it listens."""
        ear, self._live_ear = self._live_ear, None
        if ear is not None:
            await ear.close()
        if self._moving and self._asked_ear is not None:
            await asyncio.sleep(seconds)

    def take(self) -> list[bytes]:
        """What was heard and not taken yet, or the first part of it."""
        heard = self._heard
        if len(heard) > AT_ONCE:
            self._heard = heard[AT_ONCE:]
            self.keep(())
            return heard[:AT_ONCE]
        self._heard, self._bytes = [], 0
        return heard

    def keep(self, frames: Sequence[bytes]) -> None:
        """These frames are still held by whoever took them, and count."""
        self._bytes = sum(map(_cost, (*frames, *self._heard)))

    def let_go(self) -> None:
        """Forget what was heard: it is to be read back from the stream."""
        self._heard, self._bytes, self._let_go = [], 0, True
        self.wake_up()

    def has_let_go(self) -> bool:
        """Whether anything was forgotten since this was asked last."""
        has, self._let_go = self._let_go, False
        return has

    async def woken(self, until: float) -> bool:
        """Wait for something to be heard; False where the loop's clock reaches `until` first.

        The clock is looked at by `look_at`, for all readers at once: a timer for each wait would cost more than all
        else that is done for a frame.
        """
        if self._heard or self._let_go or self.left:
            return True
        self._waiter = asyncio.get_running_loop().create_future()
        self._until = until
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def look_at(self, now: float) -> None:
        """End a wait whose time has come."""
        if self._present_at and now >= self._present_at:
            self._present_at = 0.0
            self._begin(self._be_present())
        if self._waiter is not None and now >= self._until and not self._waiter.done():
            self._waiter.set_result(False)

    def wake_up(self) -> None:
        """End a wait."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def _hear(self, subject: str, data: bytes) -> None:
        if self._let_go:
            return
        self._heard.append(data)
        self._bytes += _cost(data)
        if self._bytes > BUFFERED_BYTES:
            self.let_go()
        self.wake_up()

    def _say_here(self, reply: bytes, headers: bytes, data: bytes) -> None:
        if reply and (self._moving or not self.left):
            self._begin(self._bus.publish(reply.decode(), b""))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(BusUnavailable, nats.errors.Error):  # away; after it all is asked for again
        await work


def _cost(data: bytes) -> int:
    return len(data) + FRAME_BYTES
