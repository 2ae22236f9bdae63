"""Drain: every process is restarted, one after the other by SIGTERM, while people read streams and make short requests.

    python -m ops.drills drain --streams 200 --seed 1

Two gateways share one port. Exit code 0 only if no stock client saw an error and every promise about what is stored
was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import aiohttp

from ops.drills.audit import audit
from ops.drills.clients import Chat, connector
from ops.drills.faults import Done
from ops.drills.report import details, figures
from ops.drills.stack import LEASE, Stack, run
from ops.drills.stock import ClientError, StockClient
from ops.drills.world import settled_world

POOLS = "gateway=2,generation=2,records=2"
"""Two of each that answers a client at once. What a turn passes later may be one: the turn waits for it."""
NOT_OURS = ("nats", "postgres", "scripted")
"""Servers of other make: their restart is an outage, and `outages` has a drill for each."""
SETTLED = 1.0
"""Seconds between two restarts."""
WARMING = 5.0
"""Seconds from the first stream to the first restart, so that all are open."""
PATIENCE = 120.0
SHOWN = 8


@dataclass
class Restarted:
    """One process that was replaced. Seconds: from SIGTERM until another was ready in its place."""

    name: str
    streams: int
    seconds: float


@dataclass
class Crowd:
    """Everybody who uses the system, what they asked, and what they were told."""

    chats: list[Chat] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)
    resumed: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    streams: int = 0
    """Open now."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    numbers: count[int] = field(default_factory=count)


def main(argv: list[str]) -> int:
    """Run it and print its table."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills drain", description=__doc__)
    add = parser.add_argument
    add("--streams", type=int, default=200, help="people who always have a stream open")
    add("--short", type=int, default=8, help="people who make short requests, each on a new connection or a kept one")
    add("--tokens", type=int, default=100, help="of a streamed reply, on average")
    add("--gap-ms", type=int, default=100, help="between two tokens")
    add("--pools", default=POOLS)
    add("--stall", type=float, default=LEASE + 1, help="longest silence of a stream at p99, in seconds")
    add("--seed", type=int, default=1)
    add("--keep", action="store_true", help="keep the system's folder with its logs")
    return run(drain(parser.parse_args(argv)))


async def drain(options: argparse.Namespace) -> int:
    """The drill; its exit code."""
    crowd = Crowd()
    async with Stack(pools=options.pools, keep=options.keep) as stack:
        print(f"system in {stack.folder}, gateways at {', '.join(stack.gateways())}", flush=True)
        async with connector() as http, _unkept() as fresh:
            people = [
                *(_reader(crowd, http, stack.url, options, number) for number in range(options.streams)),
                *(
                    _visitor(crowd, (http, fresh)[number % 2], stack.url, options, number)
                    for number in range(options.short)
                ),
            ]
            using = asyncio.gather(*people)
            began = time.monotonic()
            try:
                restarts, faults = await _restart_all(stack, crowd, began)
            finally:
                crowd.over.set()
                await using
        await stack.until_well()
        world = await settled_world(stack, crowd.chats)
        violations = audit(world)
        found = figures(world, violations, faults, began)
        logged = stack.errors()
        kept = found.kept and not crowd.errors and not logged and found.stall_p99 <= options.stall
        stack.keep = stack.keep or not kept
        rows = [
            ("streams and chats", str(len(crowd.chats))),
            ("other requests", str(crowd.requests)),
            ("client errors", str(len(crowd.errors))),
            *((kind, str(number)) for kind, number in found.broken.items()),
            ("interrupted", str(found.interrupted)),
            ("errors logged", str(len(logged))),
            ("retried unseen", _counted(crowd.retried)),
            ("read on elsewhere", _counted(crowd.resumed)),
            ("handed over", str(found.taken_over)),
            ("silence s p50 / p99", f"{found.stall_p50:.2f} / {found.stall_p99:.2f} (max {found.stall_max:.2f})"),
            ("TTFT s p50 / p99", f"{found.ttft_p50:.2f} / {found.ttft_p99:.2f}"),
            ("verdict", "kept" if kept else f"BROKEN, logs: {stack.data / 'logs'}"),
        ]
        print(_table(f"drain, seed {options.seed}, {options.streams} streams", restarts, rows))
        told = [f"  client error: {error}" for error in crowd.errors[:SHOWN]]
        print("\n".join([*told, *details(violations, world, faults, began), *(f"  {line}" for line in logged[:SHOWN])]))
    return 0 if kept else 1


async def _restart_all(stack: Stack, crowd: Crowd, began: float) -> tuple[list[Restarted], list[Done]]:
    """Replace one process after the other, each once the one before is ready again."""
    await asyncio.sleep(WARMING)
    restarts, faults = [], []
    for name in [entry.name for entry in stack.entries() if entry.name not in NOT_OURS]:
        before = stack.signal(name, signal.SIGTERM)
        at, streams = time.monotonic() - began, crowd.streams
        if before is None:
            crowd.errors.append(f"{name} did not run when its turn came")
            continue
        faults.append(Done(at=at, clock=time.time(), kind="restart", target=name, pid=before.pid))
        restarts.append(Restarted(name, streams, await stack.until_restarted(before)))
        print(f"  {at:6.1f} s  {name} replaced in {restarts[-1].seconds:.1f} s", flush=True)
        await asyncio.sleep(SETTLED)
    return restarts, faults


async def _reader(
    crowd: Crowd, http: aiohttp.ClientSession, url: str, options: argparse.Namespace, number: int
) -> None:
    """Somebody with a stream open, and when it has ended the next one."""
    chance = random.Random(f"{options.seed}/reader/{number}")  # noqa: S311 - reproducible, nothing secret
    client = StockClient(http, url, chance)
    await asyncio.sleep(chance.uniform(0, WARMING / 2))
    session_id = await _session(crowd, client)
    while session_id and not crowd.over.is_set():
        tokens = round(options.tokens * chance.uniform(0.3, 1.7))
        chat = Chat(number=next(crowd.numbers), session_id=session_id, tokens=tokens, gap_ms=options.gap_ms)
        crowd.streams += 1
        await _talk(crowd, chat, client.streamed)
        crowd.streams -= 1
    _remember(crowd, client)


async def _visitor(
    crowd: Crowd, http: aiohttp.ClientSession, url: str, options: argparse.Namespace, number: int
) -> None:
    """Somebody who looks around, and asks for short answers in one piece."""
    chance = random.Random(f"{options.seed}/visitor/{number}")  # noqa: S311
    client = StockClient(http, url, chance)
    session_id = await _session(crowd, client)
    while session_id and not crowd.over.is_set():
        chat = Chat(number=next(crowd.numbers), session_id=session_id, tokens=5, gap_ms=10, streamed=False)
        await _talk(crowd, chat, client.whole)
        for path in ("/v1/models", "/v1/chat/sessions?limit=3", f"/v1/chat/sessions/{session_id}/messages?limit=3"):
            await _request(crowd, client, "GET", path)
        await asyncio.sleep(chance.uniform(0.05, 0.3))
    _remember(crowd, client)


async def _session(crowd: Crowd, client: StockClient) -> str:
    answer = await _request(crowd, client, "POST", "/v1/chat/sessions")
    return str(answer["id"]) if answer else ""


async def _request(crowd: Crowd, client: StockClient, method: str, path: str) -> dict[str, object] | None:
    crowd.requests += 1
    try:
        answer: dict[str, object] = await client.ask(method, path, {} if method == "POST" else None)
    except ClientError as error:
        crowd.errors.append(str(error))
        return None
    return answer


async def _talk(crowd: Crowd, chat: Chat, hear: Callable[[Chat], Awaitable[None]]) -> None:
    crowd.chats.append(chat)
    chat.asked_at = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE):
            await hear(chat)
    except ClientError as error:
        crowd.errors.append(str(error))
        chat.errors.append(str(error))
    except TimeoutError:
        crowd.errors.append(f"chat {chat.number}: no end within {PATIENCE:g} s, turn {chat.turn_id}")


def _remember(crowd: Crowd, client: StockClient) -> None:
    crowd.retried += client.retried
    crowd.resumed += client.resumed


def _unkept() -> aiohttp.ClientSession:
    """HTTP with a new connection for every request."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=aiohttp.ClientTimeout(total=60)
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} x {what}" for what, number in counts.most_common()) or "0"


def _table(title: str, restarts: Sequence[Restarted], rows: Sequence[tuple[str, str]]) -> str:
    """What was replaced under how many streams, then the figures."""
    replaced = [f"  {each.name:<20}replaced in {each.seconds:.1f} s under {each.streams} streams" for each in restarts]
    return "\n".join([title, *replaced, *(f"  {name:<20}{value}" for name, value in rows)])
