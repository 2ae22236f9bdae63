"""One act of a drill: people chat with a running system, something happens to it, and the promise is looked at."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from ops.drills.audit import KINDS, Violation, World, audit
from ops.drills.clients import Chat, Client, connector
from ops.drills.faults import Done
from ops.drills.report import details, figures, table
from ops.drills.stack import LEASE, Stack
from ops.drills.world import SETTLING, settled_world

RAN_ANYWAY = "refused, yet run"
"""A client was told 503, and its turn ran all the same."""
FORGOTTEN = "without an end"
"""A chat that came to no end at all."""
TORN = ["ENGINE_OVERLOADED"] * 2
"""What a client is told twice in a row whose last words are not there any more."""
LATE = "late"
"""A promise of time that was not kept."""


@dataclass(kw_only=True)
class Scene:
    """A crowd. `seconds`: over which its chats begin; `limit`: how long a client waits; `stall`: the longest silence at
    p99. Each chat has a session of its own. People who ask `once` take a refusal for an answer. `says`: what they say,
    after their number.
    """

    title: str
    chats: int = 100
    seconds: float = 15.0
    tokens: int = 60
    gap_ms: int = 40
    limit: float = 90.0
    stall: float = LEASE + 1
    seed: int = 1
    once: bool = False
    says: str = ""


class Happening:
    """What is done to the system, noted with its time for the report.

    `chats`: more of them, which the act made. `stall`: the scene's limit, raised where an outage took longer.
    """

    def __init__(self, stack: Stack, stall: float) -> None:
        self.stack, self.stall, self.began = stack, stall, time.monotonic()
        self.done: list[Done] = []
        self.chats: list[Chat] = []

    def note(self, kind: str, target: str, seconds: float = 0.0) -> None:
        """Write one fault down, and say it."""
        at = time.monotonic() - self.began
        self.done.append(Done(at=at, clock=time.time(), kind=kind, target=target, pid=0, seconds=seconds))
        print(f"  {at:6.1f} s  {kind} {target}", flush=True)


TELLING = ("fenced", "taken_over", "snapshot_sent", "prefix_short", "swept", "streams_restored", "pull_lost")
"""What workers log when a guarantee was needed."""

Check = Callable[[World, Happening], Sequence[Violation]]


async def play(
    scene: Scene,
    stack: Stack,
    happen: Callable[[Happening], Coroutine[Any, Any, None]],
    *,
    ledger: str = "",
    check: Check | None = None,
    settling: float = SETTLING,
) -> bool:
    """Let the crowd chat while `happen` happens; whether every promise was kept, and those that `check` looks at.

    What has not ended `settling` seconds after the last client left counts as lost.
    """
    chance = random.Random(scene.seed)  # noqa: S311 - reproducible, nothing secret
    print(f"{scene.title}: {scene.chats} chats, system in {stack.folder}", flush=True)
    async with connector() as http:
        kind = _Accepting if scene.once else _Patient
        client = kind(http, stack.gateways(), scene.limit)
        chats = [_chat(scene, number, await client.open_session(), bool(ledger)) for number in range(scene.chats)]
        happening = Happening(stack, scene.stall)
        striking = asyncio.create_task(happen(happening))
        await asyncio.gather(*(_come(scene, client, chat, chance) for chat in chats))
        await striking
    await stack.until_well()
    world = await settled_world(stack, [*chats, *happening.chats], ledger, settling)
    violations = [*audit(world), *unanswered(world), *(check(world, happening) if check else ())]
    return _tell(scene, stack, world, violations, happening)


def _tell(scene: Scene, stack: Stack, world: World, violations: list[Violation], happening: Happening) -> bool:
    found = figures(world, violations, happening.done, happening.began)
    more = Counter(violation.kind for violation in violations if violation.kind not in KINDS)
    in_time = found.stall_p99 <= happening.stall
    kept = found.kept and in_time and not more
    stack.keep = stack.keep or not kept
    print(table(scene.title, found, Counter(done.kind for done in happening.done), happening.stall))
    for kind in (RAN_ANYWAY, FORGOTTEN, *(more.keys() - {RAN_ANYWAY, FORGOTTEN})):
        print(f"  {kind:<20}{more[kind]}")
    print("\n".join([*details(violations, world, happening.done, happening.began), *_codes(world), *_logged(stack)]))
    verdict = "kept" if kept else f"BROKEN, logs: {(stack.data / 'logs').resolve()}"
    print(f"  {'verdict':<20}{verdict}\n", flush=True)
    return kept


def _chat(scene: Scene, number: int, session_id: str, tools: bool) -> Chat:
    chance = random.Random(f"{scene.seed}/{number}")  # noqa: S311
    keyed, once = ("ledger_keyed", f"keyed-{number}"), ("ledger_once", f"once-{number}")
    return Chat(
        number=number,
        session_id=session_id,
        tokens=round(scene.tokens * chance.uniform(0.5, 1.5)),
        gap_ms=scene.gap_ms,
        tools=chance.choice([(), (), (), (keyed,), (once,)]) if tools else (),
        streamed=chance.random() < 0.9,
        leaves_at=sorted(chance.sample(range(1, 15), chance.choice([0, 0, 0, 1]))),
        key=f"drill-{scene.seed}-{number}",
        more={"messages": [{"role": "user", "content": f"{number} {scene.says}"}]},
    )


async def _come(scene: Scene, client: Client, chat: Chat, chance: random.Random) -> None:
    await asyncio.sleep(chance.uniform(0, scene.seconds))
    await client.talk(chat, random.Random(f"{scene.seed}/{chat.number}/talk"))  # noqa: S311


class _Patient(Client):
    """Told twice that its reply cannot be read on from where it is, it reads it anew, from the beginning."""

    async def _resume(self, chat: Chat, gateway: str, chance: random.Random) -> None:
        if chat.last_id and chat.errors[-len(TORN) :] == TORN:
            chat.text, chat.last_id, chat.shown = "", 0, 0
            chat.errors.append("read anew")
        await super()._resume(chat, gateway, chance)


class _Accepting(_Patient):
    """Takes a refusal for an answer, where it is the first it hears.

    One whose connection was lost before may have a turn that it knows nothing of; it asks on, as its key lets it.
    """

    async def _refused(self, chat: Chat, answer: aiohttp.ClientResponse) -> None:
        await super()._refused(chat, answer)
        if answer.status == 503 and not chat.turn_id and len(chat.errors) == 1:
            chat.ended("refused", time.monotonic())


def unanswered(world: World) -> list[Violation]:
    """Chats that came to no end, and refusals that were none."""
    ran = Counter(turn.session_id for turn in world.evidence.turns)
    endless = [chat for chat in world.chats if not chat.state]
    found = [Violation(FORGOTTEN, f"chat {chat.number}: {', '.join(chat.errors[-3:])}") for chat in endless]
    refused = [chat for chat in world.chats if chat.state == "refused" and not chat.turn_id]
    return found + [
        Violation(RAN_ANYWAY, f"chat {chat.number}: {', '.join(chat.errors)}")
        for chat in refused
        if ran[chat.session_id]
    ]


def _codes(world: World) -> list[str]:
    """What clients were told on their way, by code."""
    codes = Counter(error for chat in world.chats for error in chat.errors)
    said = ", ".join(f"{count} x {code}" for code, count in codes.most_common())
    return [f"  {'told on the way':<20}{said or 'nothing'}"]


def _logged(stack: Stack) -> list[str]:
    """How often the system's guarantees were needed, as its logs have it."""
    counts: Counter[str] = Counter()
    for path in (stack.data / "logs").glob("*.log"):
        text = path.read_text(errors="replace")
        counts.update({event: text.count(f'"event":"{event}"') for event in TELLING})
    said = ", ".join(f"{count} x {event}" for event, count in counts.most_common() if count)
    return [f"  {'logged':<20}{said or 'nothing of note'}"]
