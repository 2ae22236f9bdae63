"""Driving one or two servers through a plan."""

import asyncio
from collections.abc import Iterable

import msgspec

from ops.load.plan import Plan, Target, blocks
from ops.load.processes import Processes, Watch, listed
from ops.load.tally import Figures, Tally
from ops.load.users import NotPrepared, User

# Sessions and warm-up come before the clock starts; this many at once neither dawdle nor flood.
PREPARING = 20

# What a reply leaves to be done after its end is part of its cost.
SETTLING_SECONDS = 0.5


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a run; `processes` are those of `target`'s blocks alone."""

    target: Figures
    compare: Figures | None = None
    processes: Processes | None = None

    @property
    def failed(self) -> int:
        """Requests that did not come to their proper end, on either server."""
        return self.target.failed + (self.compare.failed if self.compare is not None else 0)


class Side:
    """One of the servers, with its users and its tally."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self.target = target
        self.tally = Tally()
        self._plan = plan
        self._users = [User(target, plan) for _ in range(plan.users)]

    async def prepare(self) -> None:
        """Open sessions and warm up, both unmeasured. Raises NotPrepared."""
        if self.target.sessions:
            await self._open_sessions()
        warmup = Tally()
        await self._closed_loop(self._users[:PREPARING], self._plan.warmup, warmup)
        if errors := warmup.figures(self.target).errors:
            raise NotPrepared(f"{self.target.base}: warm-up failed: {', '.join(errors)}")

    async def run(self, requests: int) -> None:
        """Make that many requests and add them to the tally."""
        with self.tally.clock():
            if self._plan.open_over is None:
                await self._closed_loop(self._users, requests, self.tally)
            else:
                await self._open_loop(self._plan.open_over)

    def close(self) -> None:
        """Close all connections."""
        for user in self._users:
            user.close()

    async def _open_sessions(self) -> None:
        for first in range(0, len(self._users), PREPARING):
            some = self._users[first : first + PREPARING]
            told = await asyncio.gather(*(user.open_session() for user in some), return_exceptions=True)
            for problem in told:
                if problem is not None:
                    raise problem

    async def _closed_loop(self, users: Iterable[User], requests: int, tally: Tally) -> None:
        """Every user asks anew as soon as a reply is over, until all requests are used up."""
        left = iter(range(requests))

        async def keep_asking(user: User) -> None:
            for _ in left:
                await user.ask(tally)

        async with asyncio.TaskGroup() as group:
            for user in users:
                group.create_task(keep_asking(user))

    async def _open_loop(self, over: float) -> None:
        """Users come at their time, however slow the server is, and ask once."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for number, user in enumerate(self._users):
                await asyncio.sleep(start + number * over / len(self._users) - loop.time())
                group.create_task(user.ask(self.tally))


async def drive(plan: Plan) -> Outcome:
    """Carry out the plan. With a second server the two take turns, so that both meet the same machine.

    Raises NotPrepared, and OSError or msgspec.DecodeError for an unreadable run.json.
    """
    watch = Watch(listed(plan.run_json)) if plan.run_json is not None else None
    side = Side(plan.target, plan)
    other = Side(plan.compare, plan) if plan.compare is not None else None
    try:
        await side.prepare()
        if other is not None:
            await other.prepare()
        for requests in _shares(plan):
            await _watched(side, requests, watch)
            if other is not None:
                await other.run(requests)
    finally:
        side.close()
        if other is not None:
            other.close()
        if watch is not None:
            watch.close()
    return Outcome(
        target=side.tally.figures(plan.target),
        compare=other.tally.figures(other.target) if other is not None else None,
        processes=watch.processes(side.tally.tokens, side.tally.peak_open) if watch is not None else None,
    )


async def _watched(side: Side, requests: int, watch: Watch | None) -> None:
    if watch is None:
        await side.run(requests)
        return
    async with watch:
        await side.run(requests)
        await asyncio.sleep(SETTLING_SECONDS)


def _shares(plan: Plan) -> list[int]:
    if plan.compare is None or plan.open_over is not None:
        return [plan.requests]
    return blocks(plan.requests, plan.concurrency)
