"""What keeps turns from standing still: leases, by which living processes are known, and the sweep.

Raises psycopg errors.
"""

from __future__ import annotations

import msgspec

from workers.storage.database import Database
from workers.storage.queries import load
from workers.storage.turn_rows import Standing

QUERIES = load("upkeep")
SWEEP_LOCK = 0x73776565


class _Session(msgspec.Struct):
    session_id: str


class _Flag(msgspec.Struct):
    mine: bool


class Upkeep:
    """Leases and the sweep."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def sweep(self, after: float, limit: int) -> tuple[list[Standing], list[str]]:
        """Turns, and sessions with a queue, standing still for `after` seconds. One process at a time finds any."""
        async with self.database.transaction() as held:
            lock = await held.one(QUERIES["try_sweep_lock"], {"lock": SWEEP_LOCK}, _Flag)
            if lock is None or not lock.mine:
                return [], []
            params = {"after": after, "limit": limit}
            turns = await held.all(QUERIES["sweep"], params, Standing)
            sessions = await held.all(QUERIES["sessions_standing_still"], params, _Session)
        return turns, [row.session_id for row in sessions]

    async def renew_lease(self, worker_id: str, stage: str, lease: float) -> None:
        """Say that this process is alive for `lease` more seconds."""
        await self.database.run(QUERIES["renew_lease"], {"worker_id": worker_id, "stage": stage, "lease": lease})

    async def give_up_lease(self, worker_id: str) -> None:
        """Say that this process holds nothing any more."""
        await self.database.run(QUERIES["give_up_lease"], {"worker_id": worker_id})
