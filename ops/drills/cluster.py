"""A cluster of three NATS servers loses the leader of the replies, again and again, and each time a worker right after.

    python -m ops.drills cluster [--chats N] [--seed S] [--times K]

While a leader is elected the cluster drops what is published and tells nobody; the hole has to be healed by snapshots.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors

from ops.drills.chaos import running_ledger
from ops.drills.nats_cluster import SIZE, NatsCluster
from ops.drills.scene import Happening, Scene, play
from ops.drills.stack import LEASE, Stack, run
from schemas.streams import REPLIES

FIRST = 4.0
RIGHT_AFTER = 0.5
AWAY = 4.0
BETWEEN = 8.0
ELECTION = 8.0
"""Seconds that a cluster may take to notice that a leader is gone and to elect another: 4.2 were measured."""


def main(argv: list[str]) -> int:
    """Run it and print its table."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills cluster", description=__doc__)
    parser.add_argument("--chats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=3, help="how often the leader is killed")
    options = parser.parse_args(argv)
    return run(_drill(options.chats, options.seed, options.times))


async def _drill(chats: int, seed: int, times: int) -> int:
    async with running_cluster() as cluster, running_ledger() as ledger:
        settings = {
            "NATS_URL": cluster.url,
            "COZY_STORAGE__NATS_REPLICAS": str(SIZE),
            "COZY_DRILL_LEDGER_URL": ledger,
        }
        async with Stack(settings) as stack:

            async def happen(happening: Happening) -> None:
                await _strike(happening, cluster, times, random.Random(seed))  # noqa: S311

            scene = Scene(
                title="The leader of the replies killed, and a worker right after",
                chats=chats,
                seed=seed,
                seconds=FIRST + times * (AWAY + BETWEEN),
                stall=ELECTION + LEASE + 1,
            )
            return 0 if await play(scene, stack, happen, ledger=ledger) else 1


async def _strike(happening: Happening, cluster: NatsCluster, times: int, chance: random.Random) -> None:
    await asyncio.sleep(FIRST)
    for _ in range(times):
        leader = await _leader(cluster)
        await cluster.nodes[leader].kill()
        happening.note("leader killed", f"{leader}, which led {REPLIES.name}")
        await asyncio.sleep(RIGHT_AFTER)
        worker = chance.choice(happening.stack.names("generation"))
        happening.stack.signal(worker, signal.SIGKILL)
        happening.note("worker killed", worker)
        await asyncio.sleep(AWAY)
        await cluster.nodes[leader].start()
        happening.note("server back", leader)
        await asyncio.sleep(BETWEEN)


async def _leader(cluster: NatsCluster) -> str:
    """Who leads the replies' stream, once anybody does."""
    async with asyncio.timeout(2 * ELECTION):
        while True:
            try:
                if leader := await cluster.leader_of(REPLIES.name):
                    return leader
            except (nats.errors.Error, TimeoutError):
                pass
            await asyncio.sleep(0.2)


@asynccontextmanager
async def running_cluster() -> AsyncIterator[NatsCluster]:
    """Three servers in a folder of their own; ended and removed on leaving."""
    folder = Path(tempfile.mkdtemp(prefix="cozy-cluster-"))
    cluster = NatsCluster(folder)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
