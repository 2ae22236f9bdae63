"""A worker with some of its guarantees broken: `python -m ops.drills.mutant NAME[,NAME...] workers.generation`.

The product has no switch for any of this: its modules are changed from outside, before they run. A mutation that does
not find what it is to break says so and ends the process, lest a drill pass because it broke nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import runpy
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

EPOCH = " AND epoch = %(epoch)s"
PAUSE = 2.0
"""Seconds between reading what a frozen owner showed and going on from there: time for it to wake up and speak."""


class Settled:
    """A message that is off the queue already, whatever is done about it afterwards."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    async def ack(self) -> None:
        """Nothing."""

    async def nak(self, delay: float | None = None) -> None:
        """Nothing."""

    async def term(self) -> None:
        """Nothing."""


class Deleting(Settled):
    """A message that goes with the first exception, as FastStream's default has it. `later`: it is only to wait."""

    later = False

    async def ack(self) -> None:
        """As usual."""
        await self._message.ack()

    async def nak(self, delay: float | None = None) -> None:
        """Given back where it is to wait, or where the process stops; otherwise deleted."""
        if self.later or delay is None:
            await self._message.nak(delay=delay)
        else:
            await self._message.term()


def ack_first() -> None:
    """The message is acknowledged before its work begins."""

    async def deliver(message: Any, *rest: Any) -> None:
        await message.ack()
        await original(Settled(message), *rest)

    original = _replace("workers.delivery", "deliver", deliver)


def exception_deletes() -> None:
    """What fails is not tried again."""
    later = importlib.import_module("workers.delivery").Later

    async def deliver(message: Any, stage: str, event: Any, work: Callable[[Any], Awaitable[None]], *rest: Any) -> None:
        deleting = Deleting(message)

        async def watched(event: Any) -> None:
            try:
                await work(event)
            except later:
                deleting.later = True
                raise

        await original(deleting, stage, event, watched, *rest)

    original = _replace("workers.delivery", "deliver", deliver)


def no_epoch_check() -> None:
    """Whoever comes last may commit, owner or not."""
    queries = importlib.import_module("workers.storage.turns").QUERIES
    for name in ("finish_turn", "call_tools", "finish_tools"):
        if EPOCH not in queries[name]:
            _does_not_fit(name)
        queries[name] = queries[name].replace(EPOCH, "")


def no_fence() -> None:
    """The old owner is not fenced off: what it says between our reading and our beginning is shown."""
    codec, subjects, replies = (importlib.import_module(f"schemas.{name}") for name in ("codec", "subjects", "replies"))

    async def fence_off(bus: Any, claimed: Any) -> int:
        # A fence before the old owner's own epoch keeps nobody out, and has a place in the stream like the real one.
        frame = codec.encode(replies.Fence(claimed.epoch - 1))
        sequence: int = (await bus.store(subjects.reply(claimed.shard, claimed.turn_id), frame, msg_id=None)).seq
        return sequence

    _replace("workers.generation.takeover", "fence_off", fence_off)


def slow_takeover() -> None:
    """No mutation: a pause that gives a frozen owner the time to wake up at the worst moment."""

    async def take_over(self: Any, *rest: Any) -> None:
        await asyncio.sleep(PAUSE)
        await original(self, *rest)

    original = _replace("workers.generation.writer", "ReplyWriter.take_over", take_over)


def no_snapshot() -> None:
    """What was lost on the way is believed to have arrived."""

    async def snapshot(self: Any) -> None:
        self._doubtful, self._reconnects = False, self._bus.reconnects

    _replace("workers.generation.writer", "ReplyWriter._snapshot", snapshot)


def message_id_reused() -> None:
    """The sweeper drives a turn again under the message id that its event had the first time."""

    async def say_again(*rest: Any, msg_id: str) -> None:
        await original(*rest, msg_id="")

    original = _replace("workers.sweeper", "say_again", say_again)


MUTATIONS: Mapping[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        ack_first,
        exception_deletes,
        no_epoch_check,
        no_fence,
        slow_takeover,
        no_snapshot,
        message_id_reused,
    )
}


def _replace(module: str, path: str, new: Any) -> Any:
    """Put `new` in the place of `module`'s `path`; what was there."""
    place = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        place = getattr(place, part, None)  # type: ignore[assignment]
    if not hasattr(place, name):
        _does_not_fit(f"{module}.{path}")
    old = getattr(place, name)
    setattr(place, name, new)
    return old


def _does_not_fit(what: str) -> None:
    sys.exit(f"mutant: the code has changed, {what} is not what this mutation breaks")


def main(argv: list[str]) -> None:
    """Break what is named, then run the module as if it were started by itself."""
    names, module = argv
    for name in filter(None, names.split(",")):
        MUTATIONS[name]()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
