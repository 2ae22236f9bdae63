"""A cluster of three holds every stream three times, and elects another leader when one dies."""

from __future__ import annotations

import asyncio

import nats.errors

from ops.drills.cluster import running_cluster
from ops.drills.nats_cluster import SIZE, NatsCluster
from ops.runtime import topology
from ops.runtime.bus import Bus
from schemas.streams import REPLIES, STREAMS

ELECTED_WITHIN = 20.0


async def test_streams_have_a_copy_on_each_server_and_another_leads_when_one_dies() -> None:
    async with running_cluster() as cluster:
        bus = await Bus.connect(cluster.url, "test")
        try:
            assert await topology.ensure(bus, lease=3, replicas=SIZE) == [spec.name for spec in STREAMS]
            info = await bus.client.jetstream(timeout=5).stream_info(REPLIES.name)
            assert info.config.num_replicas == SIZE
            leader = await cluster.leader_of(REPLIES.name)
            await cluster.nodes[leader].kill()
            assert await another_than(leader, cluster) in cluster.nodes
        finally:
            await bus.close()


async def another_than(old: str, cluster: NatsCluster) -> str:
    """Who leads the replies instead."""
    async with asyncio.timeout(ELECTED_WITHIN):
        while True:
            try:
                if (leader := await cluster.leader_of(REPLIES.name)) not in ("", old):
                    return leader
            except (nats.errors.Error, TimeoutError):
                pass  # nobody leads yet
            await asyncio.sleep(0.1)
