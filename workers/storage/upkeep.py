"""What keeps turns from standing still: leases, by which living processes are known, and the sweep.

Raises psycopg errors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
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


class _Lock(msgspec.Struct):
    mine: bool
    patience: str


class Upkeep:
    """Leases and the sweep."""

    def __init__(self, database: Database, concurrent_turns: int | None = None) -> None:
        self.database, self.concurrent_turns = database, concurrent_turns

    @asynccontextmanager
    async def sweeping(self, patience: float) -> AsyncIterator[bool]:
        """Whether this process is the one that sweeps; where it is, no other is while the block runs.

        Unless that takes more than `patience` seconds, as in a process that is frozen or cut off: it is thrown out, and
        leaving the block raises a psycopg.Error.
        """
        params = {"lock": SWEEP_LOCK, "patience": str(int(patience * 1000))}
        async with self.database.transaction() as held:
            lock = await held.one(QUERIES["try_sweep_lock"], params, _Lock)
            yield lock is not None and lock.mine

    async def sweep(
        self, after: float, limit: int, *, lease: float, backlogs: Mapping[str, float] | None = None
    ) -> Found:
        """What stands still for `after` seconds, `limit` of each kind. Two at once find a turn once.

        `backlogs`: for a state, how long ago the oldest event was sent that still waits for that state's stage.
        """
        params: dict[str, Any] = {"after": after, "limit": limit, "lease": lease, "stopped": STOP_SECONDS}
        params |= {"backlogs": msgspec.json.encode(backlogs or {}).decode()}
        params |= {"concurrent_turns": self.concurrent_turns}
        turns = await self.database.all(QUERIES["sweep"], params, Standing)
        sessions = await self.database.all(QUERIES["sessions_standing_still"], params, _Session)
        return Found(turns, [row.session_id for row in sessions])

    async def not_driven(self, turn_ids: Sequence[str], after: float) -> None:
        """These were found by `sweep` and could not be sent on: the next one finds them again."""
        await self.database.run(QUERIES["not_driven"], {"turn_ids": list(turn_ids), "after": after})

    async def untold(self, after: float, since: float, limit: int) -> list[Standing]:
        """Turns that ended between `since` and `after` seconds ago, and of which memory has never heard."""
        params = {"after": after, "since": since, "limit": limit}
        return await self.database.all(QUERIES["ended_untold"], params, Standing)

    async def forget_refusals(self) -> int:
        """Forget what was refused an hour ago, 10,000 questions at most; says how many that were."""
        return await self.database.run(QUERIES["forget_refusals"], {})

    async def renew_lease(
        self, worker_id: str, stage: str, lease: float, slots: int = 0, *, hears: bool = True
    ) -> None:
        """Say that this process is alive for `lease` more seconds, and can be given so many messages at once.

        One that does not hear the bus lives no longer where another process of its stage can be given any.
        """
        values = {"worker_id": worker_id, "stage": stage, "lease": lease, "slots": slots, "hears": hears}
        await self.database.run(QUERIES["renew_lease"], values)

    async def give_up_lease(self, worker_id: str) -> None:
        """Say that this process holds nothing any more."""
        await self.database.run(QUERIES["give_up_lease"], {"worker_id": worker_id})
