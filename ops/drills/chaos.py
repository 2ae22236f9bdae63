"""Chaos: workers, NATS and PostgreSQL are killed and frozen at random while people chat, leave and come back.

    python -m ops.drills chaos --chats 1000 --kills 60 --nats 5 --postgres 4 --freezes 5 --seed 1 --seconds 240

Exit code 0 only if nothing was lost, doubled, changed or disordered, and readers waited no longer than `--stall` at
p99.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from ops.drills import faults
from ops.drills.audit import World, audit
from ops.drills.clients import Chat, Client, connector
from ops.drills.faults import Injector
from ops.drills.report import Figures, details, figures, logged_errors, table
from ops.drills.stack import LEASE, Stack, run
from ops.drills.watch import Watch
from ops.drills.world import settled_world
from ops.local.remembered import free_port

IN_A_SESSION = 4
AT_ONCE = 4
"""So many of a session's chats are asked at once: one is answered, the others have to wait for their turns."""
WITHOUT_KEY = 0.2
"""The part of the clients that send no Idempotency-Key, and retry as OpenAI's own do."""
GAP_MS = 40
ON_BUSY = ("",) * 9 + ("interrupt",)
"""What a question does to those before it in its session: it waits for their answers, and in a tenth of the sessions it
ends them."""
KINDS = {
    "kills": faults.KILL,
    "gateways": faults.GATEWAY,
    "nats": faults.NATS,
    "postgres": faults.POSTGRES,
    "freezes": faults.FREEZE,
}
"""The options that say how often, and the fault each means."""
LEDGER_START = 10.0
LEDGER_URL = "COZY_DRILL_LEDGER_URL"
SETTINGS = {"COZY_API__REUSE_PORT": "false", "COZY_SECURITY__CONCURRENT_TURNS": "60"}
"""Each gateway at an address of its own, so that a client that comes back comes to another one. The limit is reached
after an outage, when everybody asks again."""


def main(argv: list[str]) -> int:
    """Run it and print its table."""
    options = _parser().parse_args(argv)
    return run(chaos(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ops.drills chaos", description=__doc__)
    add = parser.add_argument
    add("--chats", type=int, default=200)
    add("--kills", type=int, default=10, help="workers killed")
    add("--gateways", type=int, default=1, help="gateways killed")
    add("--nats", type=int, default=1, help="times NATS is killed")
    add("--postgres", type=int, default=1, help="times PostgreSQL crashes")
    add("--freezes", type=int, default=1, help="workers frozen for longer than a lease")
    add("--seed", type=int, default=1)
    add("--seconds", type=float, default=0, help="over which faults are spread; default: a fifth of the chats")
    add("--tokens", type=int, default=60, help="of a reply, on average")
    add("--limit", type=float, default=120, help="seconds a client waits for its reply")
    add("--stall", type=float, default=LEASE + 1, help="longest stall at p99, in seconds")
    add("--keep", action="store_true", help="keep the system's folder with its logs")
    return parser


class Outcome(NamedTuple):
    """What there is to report of a chaos."""

    world: World
    injector: Injector
    watch: Watch


async def chaos(options: argparse.Namespace) -> int:
    """The drill; its exit code."""
    log = Path(tempfile.gettempdir()) / f"cozy-chaos-{options.seed}-{time.time_ns():x}.jsonl"
    async with running_ledger() as ledger, Stack({**SETTINGS, LEDGER_URL: ledger}, keep=options.keep) as stack:
        print(f"system in {stack.folder}, fault log {log}", flush=True)
        outcome = await _outcome(options, stack, ledger, log)
        found = _report(options, stack, outcome)
        stack.keep = stack.keep or not found.kept
        print(f"  fault log {log}" + (f", logs {stack.data / 'logs'}" if stack.keep else ""))
    return 0 if found.kept and found.stall_p99 <= options.stall else 1


async def _outcome(options: argparse.Namespace, stack: Stack, ledger: str, log: Path) -> Outcome:
    """Let people chat while faults strike, and look at what is left when all is over."""
    chance = random.Random(options.seed)  # noqa: S311 - reproducible, nothing secret
    seconds = _seconds(options)
    planned = faults.plan({kind: getattr(options, option) for option, kind in KINDS.items()}, seconds, chance)
    async with connector() as http:
        client = Client(http, stack.gateways(), options.limit)
        sessions = await made_sessions(client, options.chats, options.tokens, chance)
        injector = Injector(stack, log)
        async with Watch(stack) as watch:
            striking = asyncio.create_task(injector.run(planned))
            await asyncio.gather(*(crowd(client, chats, seconds, options.seed) for chats in sessions))
            await striking
    await stack.until_well()
    world = await settled_world(stack, [chat for chats in sessions for chat in chats], ledger)
    return Outcome(world, injector, watch)


def _report(options: argparse.Namespace, stack: Stack, outcome: Outcome) -> Figures:
    """Print the table and what explains it; give the figures."""
    world, injector, watch = outcome
    violations = audit(world)
    found = figures(world, violations, injector.done, injector.began, watch.dark)
    title = f"chaos, seed {options.seed}, {_seconds(options):g} s of faults"
    print(table(title, found, injector.counts(), options.stall))
    print(logged_errors(stack.errors()))
    print("\n".join(details(violations, world, injector.done, injector.began, watch.dark)))
    return found


def _seconds(options: argparse.Namespace) -> float:
    seconds: float = options.seconds or max(20.0, options.chats / 5)
    return seconds


async def made_sessions(client: Client, count: int, tokens: int, chance: random.Random) -> list[list[Chat]]:
    """The chats, session by session."""
    numbers = list(range(count))
    chunks = [numbers[first : first + IN_A_SESSION] for first in range(0, count, IN_A_SESSION)]
    ids = [await client.open_session() for _ in chunks]
    wishes = [chance.choice(ON_BUSY) for _ in chunks]
    return [[new_chat(n, ids[i], tokens, wishes[i], chance) for n in chunk] for i, chunk in enumerate(chunks)]


def new_chat(number: int, session_id: str, tokens: int, on_busy: str, chance: random.Random) -> Chat:
    """A chat of any kind: most are streamed, a third use tools, some are left and returned to, a few are stopped."""
    length = round(tokens * chance.uniform(0.5, 1.5))
    keyed, once = ("ledger_keyed", f"keyed-{number}"), ("ledger_once", f"once-{number}")
    tools = chance.choice([(), (), (), (), (keyed,), (once,), (keyed, once)])
    if not tools and chance.random() < 0.3:
        length = 0  # says what it was given
    streamed = chance.random() < 0.9
    leaves = sorted(chance.sample(range(1, 15), chance.choice([0, 0, 1, 2])))
    return Chat(
        number=number,
        session_id=session_id,
        tokens=length,
        gap_ms=GAP_MS,
        tools=tools,
        streamed=streamed,
        leaves_at=leaves,
        stops_at=chance.choice([0] * 19 + [chance.randrange(1, 20)]),
        on_busy=on_busy,
        key="" if chance.random() < WITHOUT_KEY else f"drill-{number}",
    )


async def crowd(client: Client, chats: Sequence[Chat], seconds: float, seed: int) -> None:
    """One session's people: they come some time during the faults, and ask several at once."""
    chance = random.Random(f"{seed}/{chats[0].number}")  # noqa: S311
    await asyncio.sleep(chance.uniform(0, 0.85 * seconds))
    for first in range(0, len(chats), AT_ONCE):
        await asyncio.gather(*(client.talk(chat, chance) for chat in chats[first : first + AT_ONCE]))


@asynccontextmanager
async def running_ledger() -> AsyncIterator[str]:
    """The ledger as a process of its own; its address."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "ops.drills.ledger", "--port", str(port))
    try:
        async with asyncio.timeout(LEDGER_START):
            while True:
                try:
                    await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
