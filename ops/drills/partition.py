"""Stages on an island: the network between them and NATS is cut for some seconds and joined again. Needs root.

    python -m ops.drills partition [--chats N] [--seed S] [--seconds T]

Packets vanish without a word to either side, as behind a dead switch: connections stay open and nobody is told. Three
acts: some generation workers lose NATS, then NATS and PostgreSQL; every stage loses NATS; every stage loses both.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from ops.drills.__main__ import NOT_RUN
from ops.drills.chaos import running_ledger
from ops.drills.forwarder import Forwarder
from ops.drills.machine import Island, NotAllowed
from ops.drills.scene import Happening, Scene, play
from ops.drills.stack import LEASE, Stack, run
from ops.local.child import Child, Program, spawn
from ops.local.launch_settings import PROJECT
from ops.local.readiness import until

NAME = "cozydrill"
TO_NATS, TO_THE_REST = 1, 2
CABLES = {TO_NATS: "NATS", TO_THE_REST: "PostgreSQL and the model"}
FIRST = 4.0
BETWEEN = 6.0
START_SECONDS, STOP_SECONDS = 30.0, 10.0
RECONNECT = 5.0
"""Seconds after which a connection that was cut is known to be dead or made again."""
STAGES = ("context_fetch", "generation", "generation", "tool_execution", "memory_writeback")
NONE_AT_HOME = "context_fetch=0,generation=0,tool_execution=0,memory_writeback=0"


def main(argv: list[str]) -> int:
    """Run every act."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills partition", description=__doc__)
    parser.add_argument("--chats", type=int, default=150, help="in each act")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long a cut lasts")
    options = parser.parse_args(argv)
    return run(_drill(options.chats, options.seed, options.seconds))


async def _drill(chats: int, seed: int, seconds: float) -> int:
    both = [TO_NATS, TO_THE_REST]
    try:
        some = await _act(
            "Two of three generation workers parted", ["generation"] * 2, [[TO_NATS], both], chats, seed, seconds
        )
        everyone = await _act("Every stage parted", STAGES, [[TO_NATS], both], chats, seed, seconds)
    except NotAllowed as error:
        print(f"not run: {error}")
        return NOT_RUN
    return 0 if some and everyone else 1


async def _act(
    title: str, stages: Sequence[str], cuts: Sequence[Sequence[int]], chats: int, seed: int, seconds: float
) -> bool:
    """Cut these cables, one set after the other, while people chat."""
    pools = "generation=1,context_fetch=2,tool_execution=2" if stages is not STAGES else NONE_AT_HOME
    async with (
        running_ledger() as ledger,
        Stack({"COZY_DRILL_LEDGER_URL": ledger}, pools=pools) as stack,
        inhabited(stack, ledger, stages) as island,
    ):

        async def happen(happening: Happening) -> None:
            for cables in cuts:
                await asyncio.sleep(FIRST)
                what = " and ".join(CABLES[cable] for cable in cables)
                for cable in cables:
                    island.cut(cable)
                happening.note("parted", f"from {what}", seconds)
                await asyncio.sleep(seconds)
                for cable in cables:
                    island.join(cable)
                happening.note("joined", f"with {what}")
                await asyncio.sleep(BETWEEN)

        length = len(cuts) * (FIRST + seconds + BETWEEN)
        stall = seconds + LEASE + RECONNECT
        scene = Scene(title=title, chats=chats, seed=seed, seconds=length, stall=stall)
        return await play(scene, stack, happen, ledger=ledger)


@asynccontextmanager
async def inhabited(stack: Stack, ledger: str, stages: Sequence[str]) -> AsyncIterator[Island]:
    """An island on which these stages run, as part of the stack. Raises NotAllowed."""
    async with AsyncExitStack() as leaving:
        island = Island(NAME, len(CABLES))
        leaving.callback(island.sink)
        addresses = {
            "NATS_URL": (TO_NATS, stack.nats_url),
            "DATABASE_URL": (TO_THE_REST, stack.database_url),
            "SCRIPTED_URL": (TO_THE_REST, stack.entry("scripted").url),
            "COZY_DRILL_LEDGER_URL": (TO_THE_REST, ledger),
        }
        reached = {}
        for variable, (cable, url) in addresses.items():
            where = urlsplit(url)
            assert where.hostname is not None
            assert where.port is not None
            forwarder = Forwarder(island.here(cable), where.port, (where.hostname, where.port))
            await forwarder.start()
            leaving.push_async_callback(forwarder.stop)
            reached[variable] = url.replace(where.hostname, island.here(cable))
        children = [await _settle(stack, island, stage, number, reached) for number, stage in enumerate(stages)]
        leaving.push_async_callback(_leave, children)
        async with asyncio.timeout(START_SECONDS):
            await until(lambda: _all_ready(stack, stages))
        yield island


async def _settle(stack: Stack, island: Island, stage: str, number: int, reached: Mapping[str, str]) -> Child:
    name = _name(stage, number)
    return await spawn(
        Program(
            name=name,
            argv=[*island.entrance, sys.executable, "-m", f"workers.{stage}"],
            env={**stack.environment, **reached},
            log=stack.data / "logs" / f"{name}.log",
            cwd=PROJECT,
        )
    )


async def _all_ready(stack: Stack, stages: Sequence[str]) -> bool:
    logs = [stack.data / "logs" / f"{_name(stage, number)}.log" for number, stage in enumerate(stages)]
    return all(log.exists() and '"event":"ready"' in log.read_text() for log in logs)


async def _leave(children: Sequence[Child]) -> None:
    await asyncio.gather(*(child.stop(signal.SIGTERM, STOP_SECONDS) for child in children))


def _name(stage: str, number: int) -> str:
    return f"island-{number}-{stage}"
