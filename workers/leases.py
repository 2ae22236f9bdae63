"""This process's lease, by which its turns are known to be in living hands, and the giving back of what it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import structlog

from ops.runtime.bus import Bus
from schemas.ids import new_id
from workers.delivery import Fenced
from workers.storage.database import Database
from workers.storage.turns import Turns
from workers.storage.upkeep import Upkeep

log = structlog.get_logger()

RENEWALS = 3
"""Renewals within one lease, so that two may fail."""
ANSWERS = 4
"""The part of a lease within which the bus must answer, so that one more try fits in before the lease ends."""
GIVE_BACK_SECONDS = 1.0
"""How long leaving a turn may take. What could not be given back by then is given back with a later renewal."""
SOON = 0.25
"""Seconds until a renewal that failed is tried again."""


class Lease:
    """Renewed for as long as the process lives. `seconds` after the last renewal its turns may be taken by others.

    A process that does not hear the bus can show nothing of its replies: its lease runs out where another of its stage
    hears it. `begin` gives it a connection of its own: waiting for one among the work, a busy process would look like a
    dead one.
    """

    def __init__(self, database: Database, bus: Bus, stage: str, seconds: float) -> None:
        self._bus, self._silent_at = bus, float("-inf")
        self.worker_id, self.stage, self.seconds = new_id(), stage, seconds
        self.slots = 0
        """How many messages this process works on at once."""
        self._left: set[tuple[str, int]] = set()
        self._giving = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._own: Database | None = None
        self._use(database)

    def _use(self, database: Database) -> None:
        self._database, self._turns, self._upkeep = database, Turns(database), Upkeep(database)

    async def begin(self) -> None:
        """Open the lease's own connection, without waiting for the server."""
        self._own = await self._database.beside(size=1, name=f"{self.stage}-lease", wait=self.seconds / RENEWALS)
        self._use(self._own)

    async def run(self) -> None:
        """Renew, and give back what is still to be given back, for ever."""
        while True:
            pause = self.seconds / RENEWALS
            await asyncio.sleep(pause if await self.renew() else min(pause, SOON))

    async def renew(self) -> bool:
        """Renew, and give back what is still to be given back. False where that is to be tried again soon."""
        hears = await self._bus.flush(self.seconds / ANSWERS)
        try:
            slots = self.slots if self._heard_long(hears) else 0
            await self._upkeep.renew_lease(self.worker_id, self.stage, self.seconds, slots, hears=hears)
            await self._give_back()
        except psycopg.Error as error:
            log.warning("lease_not_renewed", error=type(error).__name__)
            return False
        return hears

    def _heard_long(self, hears: bool) -> bool:
        """Whether the bus has not been silent for a whole lease.

        After an outage for all whoever is back first offers no slots that long, for the sake of those still away.
        """
        now = asyncio.get_running_loop().time()
        before = now - self._silent_at > self.seconds
        if not hears:
            self._silent_at = now
            if before:
                log.warning("bus_silent")
        return hears and before

    @asynccontextmanager
    async def holding(self, turn_id: str, epoch: int) -> AsyncIterator[None]:
        """Work on a claimed turn. Left by any exception but Fenced, the claim is given back first.

        So whoever gets the message next may claim the turn at once, and need not wait for this living process to die.
        """
        try:
            yield
        except Fenced:
            raise
        except BaseException:
            self._left.add((turn_id, epoch))
            giving = asyncio.create_task(self._try_to_give_back())
            self._tasks.add(giving)
            giving.add_done_callback(self._tasks.discard)
            await asyncio.wait({giving}, timeout=GIVE_BACK_SECONDS)
            raise

    async def end(self) -> None:
        """Say that this process holds nothing any more, and close. Raises psycopg errors."""
        try:
            await self._upkeep.give_up_lease(self.worker_id)
        finally:
            if self._own is not None:
                await self._own.close()

    async def _try_to_give_back(self) -> None:
        try:
            await self._give_back()
        except psycopg.Error as error:
            log.warning("claim_not_given_back", error=type(error).__name__)

    async def _give_back(self) -> None:
        async with self._giving:
            if left := list(self._left):
                await self._turns.let_go(left)
                self._left.difference_update(left)
