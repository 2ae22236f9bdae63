"""What keeps turns from standing still: leases, by which living processes are known, and the sweep.

Raises psycopg errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from workers.storage.database import Database
from workers.storage.queries import load
from workers.storage.turn_rows import Standing

QUERIES = load("upkeep")
SWEEP_LOCK = 0x73776565
STOP_SECONDS = 3.0
"""After these a stopped turn whose owner has not ended it is driven on."""


class Found(msgspec.Struct, frozen=True):
    """What one sweep found standing still."""

    turns: Sequence[Standing] = ()
    sessions: Sequence[str] = ()


class _Session(msgspec.Struct):
    session_id: str


class _Flag(msgspec.Struct):
    mine: bool


class Upkeep:
    """Leases and the sweep."""

    def __init__(self, database: Database, concurrent_turns: int | None = None) -> None:
        self.database, self.concurrent_turns = database, concurrent_turns

    async def sweep(
        self, after: float, limit: int, *, lease: float, backlogs: Mapping[str, float] | None = None
    ) -> Found | None:
        """What stands still for `after` seconds, `limit` of each kind; None where another process sweeps just now.

        `backlogs`: for a state, how long ago the oldest event was sent that still waits for that state's stage.
        """
        async with self.database.transaction() as held:
            lock = await held.one(QUERIES["try_sweep_lock"], {"lock": SWEEP_LOCK}, _Flag)
            if lock is None or not lock.mine:
                return None
            params: dict[str, Any] = {"after": after, "limit": limit, "lease": lease, "stopped": STOP_SECONDS}
            params |= {"backlogs": msgspec.json.encode(backlogs or {}).decode()}
            params |= {"concurrent_turns": self.concurrent_turns}
            turns = await held.all(QUERIES["sweep"], params, Standing)
            sessions = await held.all(QUERIES["sessions_standing_still"], params, _Session)
        return Found(turns, [row.session_id for row in sessions])

    async def untold(self, after: float, since: float, limit: int) -> list[Standing]:
        """Turns that ended between `since` and `after` seconds ago, and of which memory has never heard."""
        params = {"after": after, "since": since, "limit": limit}
        return await self.database.all(QUERIES["ended_untold"], params, Standing)

    async def renew_lease(self, worker_id: str, stage: str, lease: float, slots: int = 0) -> None:
        """Say that this process is alive for `lease` more seconds, and works on so many messages at once."""
        values = {"worker_id": worker_id, "stage": stage, "lease": lease, "slots": slots}
        await self.database.run(QUERIES["renew_lease"], values)

    async def give_up_lease(self, worker_id: str) -> None:
        """Say that this process holds nothing any more."""
        await self.database.run(QUERIES["give_up_lease"], {"worker_id": worker_id})
