"""Fairness: one user's flood of turns waits in that user's own line, and another user's chat hardly notices.

    python -m ops.drills fairness --turns 500 --limit 8

Exit code 0 only if the other's time to the first token moved by 10 % or 30 ms at most (p95), every turn of the flood
was answered, and never more of them ran at once than the limit says.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from ops.drills.clients import CHAT, connector, events_of
from ops.drills.stack import ADMIN_KEY, KEY, Stack, run
from ops.load.samples import percentile

POOLS = "generation=2"
FIRST_TOKEN_MS, TOKENS, GAP_MS = 300, 20, 20
MOST_RATIO, MOST_SECONDS = 1.10, 0.030
PATIENCE = 300.0
"""Seconds that anybody waits for a reply."""
WARMING = 10
"""Chats before the first one that counts."""


@dataclass
class Heard:
    """One chat, in seconds of `time.monotonic()`; `ended` is 0 where it was not answered."""

    asked: float
    first: float = 0.0
    ended: float = 0.0

    @property
    def ttft(self) -> float:
        """From the question to the first word."""
        return self.first - self.asked


def main(argv: list[str]) -> int:
    """Run it and print its table."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills fairness", description=__doc__)
    add = parser.add_argument
    add("--turns", type=int, default=500, help="that one user asks for at once")
    add("--limit", type=int, default=8, help="security.concurrent_turns")
    add("--chats", type=int, default=60, help="of the other user, one after the other, alone and then beside the flood")
    add("--keep", action="store_true", help="keep the system's folder with its logs")
    return run(fairness(parser.parse_args(argv)))


async def fairness(options: argparse.Namespace) -> int:
    """The other user alone, then beside the flood."""
    settings = {"COZY_SECURITY__CONCURRENT_TURNS": str(options.limit)}
    async with Stack(settings, pools=POOLS, keep=options.keep) as stack, connector() as http:
        url = stack.gateways()[0]
        await chats(http, url, ADMIN_KEY, WARMING)
        alone = await chats(http, url, ADMIN_KEY, options.chats)
        began = time.monotonic()
        flood = [asyncio.create_task(chat(http, url, KEY)) for _ in range(options.turns)]
        burst = await chats(http, url, ADMIN_KEY, 2)
        beside = await chats(http, url, ADMIN_KEY, options.chats)
        over = any(not task.done() for task in flood)
        heard = await asyncio.gather(*flood)
        seconds = time.monotonic() - began
    print(table(options, alone, burst, beside, heard, seconds))
    if not over:
        print("  the flood ended before the other user's chats: ask for more turns")
    return 0 if over and kept(options, alone, beside, heard) else 1


async def chats(http: aiohttp.ClientSession, url: str, key: str, count: int) -> list[Heard]:
    """So many chats of one user, one after the other."""
    return [await chat(http, url, key) for _ in range(count)]


async def chat(http: aiohttp.ClientSession, url: str, key: str) -> Heard:
    """One streamed chat, read to its end. Raises nothing for what the system does: then it has no end."""
    headers = {
        "authorization": f"Bearer {key}",
        "x-scripted-ttft-ms": str(FIRST_TOKEN_MS),
        "x-scripted-tokens": str(TOKENS),
        "x-scripted-gap-ms": str(GAP_MS),
    }
    body = {"model": "cozy/default", "messages": [{"role": "user", "content": "Go on."}], "stream": True}
    heard = Heard(time.monotonic())
    limit = aiohttp.ClientTimeout(total=PATIENCE)
    try:
        async with http.post(url + CHAT, json=body, headers=headers, timeout=limit) as answer:
            if answer.status == 200:
                async for _, data in events_of(answer):
                    _take(heard, data)
    except (aiohttp.ClientError, TimeoutError):
        pass
    return heard


def _take(heard: Heard, data: str) -> None:
    if data == "[DONE]":
        heard.ended = time.monotonic()
    elif not heard.first and any(
        choice["delta"].get("content") for choice in msgspec.json.decode(data).get("choices", ())
    ):
        heard.first = time.monotonic()


def most_at_once(heard: Sequence[Heard]) -> int:
    """How many replies were under way at once, as their readers saw it."""
    moves = sorted(
        [(each.first, 1) for each in heard if each.ended] + [(each.ended, -1) for each in heard if each.ended]
    )
    running = most = 0
    for _, move in moves:
        running += move
        most = max(most, running)
    return most


def p95(heard: Sequence[Heard]) -> float:
    """Seconds to the first token."""
    return percentile(sorted(each.ttft for each in heard), 95)


def kept(options: argparse.Namespace, alone: list[Heard], beside: list[Heard], flood: list[Heard]) -> bool:
    """Whether the promise was kept."""
    fair = p95(beside) <= max(p95(alone) * MOST_RATIO, p95(alone) + MOST_SECONDS)
    answered = all(each.ended for each in (*alone, *beside, *flood))
    return fair and answered and most_at_once(flood) <= options.limit


def table(
    options: argparse.Namespace,
    alone: list[Heard],
    burst: list[Heard],
    beside: list[Heard],
    flood: list[Heard],
    seconds: float,
) -> str:
    """The figures for people. Times to the first token in milliseconds."""

    def times(heard: list[Heard]) -> str:
        ttft = sorted(each.ttft * 1000 for each in heard)
        return f"{percentile(ttft, 50):.0f} / {percentile(ttft, 95):.0f} (max {ttft[-1]:.0f}, {len(ttft)} chats)"

    moved = (p95(beside) - p95(alone)) * 1000
    rows = [
        (
            "flood",
            f"{options.turns} turns at once, {sum(bool(each.ended) for each in flood)} answered in {seconds:.1f} s",
        ),
        ("running at once", f"{most_at_once(flood)} at most, limit {options.limit}"),
        ("alone p50 / p95", times(alone)),
        ("burst p50 / p95", times(burst)),
        ("beside p50 / p95", times(beside)),
        ("p95 moved by", f"{moved:.0f} ms ({moved / p95(alone) / 10:.1f} %); at most {MOST_RATIO - 1:.0%} or 30 ms"),
        ("verdict", "kept" if kept(options, alone, beside, flood) else "BROKEN"),
    ]
    return "\n".join(["fairness", *(f"  {name:<20}{value}" for name, value in rows)])
