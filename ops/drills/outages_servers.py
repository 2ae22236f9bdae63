"""PostgreSQL and NATS away, killed, emptied or full, while people chat."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import aiohttp
import msgspec

from ops.drills.audit import Violation, World
from ops.drills.away import held
from ops.drills.chaos import running_ledger
from ops.drills.clients import CHAT, Chat
from ops.drills.scene import LATE, Happening, Scene, play
from ops.drills.stack import KEY, LEASE, Stack
from ops.local.embedded_nats import EmbeddedNats
from ops.local.embedded_postgres import EmbeddedPostgres
from ops.runtime.bus import Bus
from schemas.streams import TURNS

FIRST = 5.0
"""Seconds of ordinary chatting before anything happens."""
POSTGRES_AWAY = 10.0
NATS_AWAY = (0.2, 1.0, 2.0, 0.2, 4.0)
BETWEEN = 4.0
SWEPT = 14.0
"""Seconds within which the sweeper drives again what stands still: 8, a lease more for what has an owner, its pace."""
ROOM = 128 * 1024
"""Bytes that the work queue has left when it is to be full soon."""
FULL_FOR = 6.0
AT_ONCE = 2.0
"""Seconds within which a full queue must be told: waiting for the verdict of a turn that nobody took helps no one."""


async def postgres(chats: int, seed: int) -> bool:
    """PostgreSQL is away for 10 s: a chat completes, or was refused with 503 before it was accepted."""
    async with (
        running_ledger() as ledger,
        held(EmbeddedPostgres) as server,
        Stack({"DATABASE_URL": server.url, "COZY_DRILL_LEDGER_URL": ledger}) as stack,
    ):

        async def happen(happening: Happening) -> None:
            await asyncio.sleep(FIRST)
            happening.note("postgres away", f"for {POSTGRES_AWAY:g} s", POSTGRES_AWAY)
            gone = time.monotonic()
            await server.away(POSTGRES_AWAY)
            # A crashed server recovers first, on a busy machine for seconds.
            happening.stall = time.monotonic() - gone + LEASE + 1
            happening.note("postgres back", "")

        scene = Scene(title="PostgreSQL away", chats=chats, seed=seed, once=True)
        return await play(scene, stack, happen, ledger=ledger)


async def nats_kill(chats: int, seed: int) -> bool:
    """NATS is killed again and again, and comes back after a while."""
    async with (
        running_ledger() as ledger,
        held(EmbeddedNats) as server,
        Stack({"NATS_URL": server.url, "COZY_DRILL_LEDGER_URL": ledger}) as stack,
    ):

        async def happen(happening: Happening) -> None:
            for seconds in NATS_AWAY:
                await asyncio.sleep(BETWEEN)
                happening.note("nats killed", f"away for {seconds:g} s", seconds)
                await server.away(seconds)

        seconds, stall = BETWEEN * len(NATS_AWAY) + sum(NATS_AWAY), max(NATS_AWAY) + LEASE + 1
        scene = Scene(title="NATS killed", chats=chats, seed=seed, seconds=seconds, stall=stall)
        return await play(scene, stack, happen, ledger=ledger)


async def store_deleted(chats: int, seed: int) -> bool:
    """NATS comes back without its store: streams are made again, and turns driven again from PostgreSQL."""
    async with (
        running_ledger() as ledger,
        held(EmbeddedNats) as server,
        Stack({"NATS_URL": server.url, "COZY_DRILL_LEDGER_URL": ledger}) as stack,
    ):

        async def happen(happening: Happening) -> None:
            await asyncio.sleep(FIRST)
            happening.note("nats killed", "its store is deleted")
            await server.away(0.5, server.forget)
            happening.note("nats back", "empty")

        scene = Scene(title="NATS's store deleted", chats=chats, seed=seed, stall=SWEPT + LEASE)
        return await play(scene, stack, happen, ledger=ledger)


async def full(chats: int, seed: int) -> bool:
    """Nobody takes turns in until their queue is full: 503 with Retry-After at once, and all is well afterwards."""
    told: list[str] = []

    def check(world: World, happening: Happening) -> list[Violation]:
        return [Violation(LATE, complaint) for complaint in told]

    async with Stack() as stack:

        async def happen(happening: Happening) -> None:
            await asyncio.sleep(FIRST)
            bus = await Bus.connect(stack.nats_url, "drill-full")
            try:
                room = await _leave_room(bus, ROOM)
                _signal_all(stack, signal.SIGSTOP)
                happening.note("queue filling", f"context_fetch is frozen, {ROOM >> 10} KiB are left", FULL_FOR)
                await asyncio.sleep(FULL_FOR / 2)
                told.extend(await _complaints(stack))
                await asyncio.sleep(FULL_FOR / 2)
                _signal_all(stack, signal.SIGCONT)
                await asyncio.sleep(LEASE)
                told.extend(await _still_refused(happening))
                await _limit(bus, room)
                happening.note("queue served", "context_fetch goes on")
            finally:
                _signal_all(stack, signal.SIGCONT)
                await bus.close()

        says = "padding " * 1500
        scene = Scene(title="The work queue full", chats=chats, seed=seed, says=says, stall=FULL_FOR + 2 * LEASE)
        return await play(scene, stack, happen, check=check)


async def _leave_room(bus: Bus, room: int) -> int:
    """Lower the queue's limit to what it holds and `room` bytes more; what the limit was."""
    info = await bus.client.jetstream(timeout=5).stream_info(TURNS.name)
    await _limit(bus, info.state.bytes + room)
    return info.config.max_bytes or TURNS.max_bytes


async def _limit(bus: Bus, size: int) -> None:
    jetstream = bus.client.jetstream(timeout=5)
    config = (await jetstream.stream_info(TURNS.name)).config
    config.max_bytes = size
    await jetstream.update_stream(config)


def _signal_all(stack: Stack, number: signal.Signals) -> None:
    for name in stack.names("context_fetch"):
        stack.signal(name, number)


async def _complaints(stack: Stack) -> list[str]:
    """What is wrong with the refusal that a full queue earns."""
    status, headers, said, took = await _ask(stack)
    code = said.get("error", {}).get("code", "none")
    found = [] if status == 503 else [f"a full queue is answered {status}"]
    if "retry-after" not in headers:
        found.append("the refusal has no Retry-After")
    if took > AT_ONCE:
        found.append(f"the refusal took {took:.1f} s")
    print(
        f"    a full queue: {status} {code}, Retry-After {headers.get('retry-after')}, after {took:.2f} s", flush=True
    )
    return found


async def _still_refused(happening: Happening) -> list[str]:
    status, _, said, _ = await _ask(happening.stack)
    if status != 200:
        return [f"a queue with room again is answered {status} {said}"]
    probe = Chat(number=-1, session_id="", tokens=0, gap_ms=0, turn_id=said["cozy"]["turn_id"], state="completed")
    probe.text = said["choices"][0]["message"]["content"]
    happening.chats.append(probe)
    return []


async def _ask(stack: Stack) -> tuple[int, dict[str, str], Any, float]:
    """A whole chat of a passer-by: status, headers by small names, body, seconds."""
    body = {"model": "cozy/default", "messages": [{"role": "user", "content": "probe " * 2000}]}
    began = time.monotonic()
    async with (
        aiohttp.ClientSession() as http,
        http.post(stack.gateways()[0] + CHAT, json=body, headers={"authorization": f"Bearer {KEY}"}) as answer,
    ):
        said = msgspec.json.decode(await answer.read())
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, headers, said, time.monotonic() - began
