"""Looks at the stopped crowd's system: waits until it has settled, then reads all that an audit wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp
import msgspec

from ops.drills.audit import World
from ops.drills.clients import Chat
from ops.drills.ledger import Effects
from ops.drills.stack import Stack
from ops.runtime.bus import Bus
from schemas.streams import DEAD_LETTERS, TURNS
from workers.storage.database import Database
from workers.storage.evidence import Evidence, gather_evidence

SETTLING = 30.0
LOOK_EVERY = 0.5
READING = 60.0
"""Seconds one statement of the audit may take."""


async def settled_world(stack: Stack, chats: Sequence[Chat], ledger: str = "", settling: float = SETTLING) -> World:
    """The world once every turn has ended and every queue is empty, or as it is after `settling` seconds."""
    bus = await Bus.connect(stack.nats_url, "drill-audit")
    database = await Database.open(stack.database_url, size=1, name="drill-audit", statement_timeout=READING)
    try:
        end = time.monotonic() + settling
        while True:
            left, evidence = await queues(bus), await gather_evidence(database)
            if time.monotonic() > end or (not any(left.values()) and is_settled(evidence)):
                effects = await effects_of(ledger) if ledger else []
                return World(chats=chats, evidence=evidence, effects=effects, left=left)
            await asyncio.sleep(LOOK_EVERY)
    finally:
        await bus.close()
        await database.close()


def is_settled(evidence: Evidence) -> bool:
    """Whether every turn has ended and memory was told of all that completed."""
    return all(turn.ended and (turn.remembered or turn.state != "completed") for turn in evidence.turns)


async def queues(bus: Bus) -> dict[str, int]:
    """How many messages wait in the work queue and among the dead letters."""
    jetstream = bus.client.jetstream(timeout=5)
    return {spec.name: (await jetstream.stream_info(spec.name)).state.messages for spec in (TURNS, DEAD_LETTERS)}


async def effects_of(ledger: str) -> list[Effects]:
    """What the ledger at this address counted."""
    async with aiohttp.ClientSession() as http, http.get(f"{ledger}/effects") as answer:
        return msgspec.json.decode(await answer.read(), type=list[Effects])
