"""What must be true of the stored data once all has been said, whatever happened on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import msgspec
import psycopg

from ops.runtime.bus import Bus
from schemas.streams import DEAD_LETTERS, TURNS
from tests.journeys.api import Api
from tests.journeys.stack import KEY, STOP_SECONDS, Stack, until

SAID_HONESTLY = "stored_reply_differs"
"""Bus and worker died at once, and with them what a reader had seen: logged as an error, and told to the reader."""
SETTLING = 15.0
"""Seconds: as long as a message may wait for its worker's lease to end, twice."""
NEVER = {
    "turns that have not ended": "SELECT id, state FROM turns WHERE finished_at IS NULL",
    "replies that were left as a part": "SELECT turn_id FROM messages WHERE metadata ? 'partial'",
    "finished turns that memory was never told of": (
        "SELECT id FROM turns WHERE state = 'completed' AND NOT EXISTS "
        "(SELECT FROM memory_writes WHERE memory_writes.turn_id = turns.id)"
    ),
    "sessions whose messages were counted wrongly": (
        "SELECT sessions.id, message_count, count(*) FROM sessions JOIN messages ON session_id = sessions.id "
        "WHERE NOT EXISTS (SELECT FROM turns WHERE turns.session_id = sessions.id AND state <> 'completed') "
        "GROUP BY sessions.id HAVING message_count <> count(*)"
    ),
    "turns answered twice": (
        "SELECT messages.turn_id FROM messages WHERE role = 'assistant' AND NOT metadata ? 'tool_calls' "
        "GROUP BY turn_id, coalesce(metadata ->> 'choice', '0') HAVING count(*) > 1"
    ),
    "tool calls that were left open": "SELECT id, status FROM tool_calls WHERE result IS NULL",
}


async def assert_all_ended_well(stack: Stack) -> None:
    """Wait until the stages are done, then look at everything that was stored."""
    found: dict[str, Any] = {}

    async def nothing_wrong() -> bool:
        found.clear()
        found.update(await _wrong(stack))
        return not found

    await until(nothing_wrong, SETTLING, lambda: f"after all was said: {found}")


def assert_nothing_went_wrong_within(stack: Stack) -> None:
    """No process of ours logged an error: what happened to it came from outside, and was borne."""
    events: Counter[str] = Counter()
    for path in stack.logs.iterdir():
        for line in path.read_text(errors="replace").splitlines():
            if '"level":"error"' in line or '"level":"critical"' in line:
                said = msgspec.json.decode(line)
                if said["event"] == SAID_HONESTLY:
                    continue
                events[f"{path.name}: {said['event']} {said.get('error', said.get('exception', ''))}"] += 1
    assert dict(events) == {}


async def assert_stops_in_time(stack: Stack) -> None:
    """Ended as Ctrl-C ends it, with a reply under way that takes longer than anyone waits."""
    endless = {"x-scripted-tokens": "1000", "x-scripted-gap-ms": "100"}
    async with aiohttp.ClientSession() as http:
        reader = asyncio.create_task(Api(http, stack.url, KEY).stream("Go on for ever.", headers=endless))
        await asyncio.sleep(0.5)
        took = await stack.stop()
        stream = await reader
    assert took < STOP_SECONDS
    assert not (stack.data_dir / "run.json").exists()
    assert stream.error is not None
    assert stream.error["code"] == "ENGINE_OVERLOADED"


async def _wrong(stack: Stack) -> dict[str, Any]:
    wrong: dict[str, Any] = {}
    async with await psycopg.AsyncConnection.connect(stack.entry("postgres").url) as connection:
        for what, query in NEVER.items():
            rows = await (await connection.execute(query.encode())).fetchmany(3)
            if rows:
                wrong[what] = rows
    bus = await Bus.connect(stack.entry("nats").url, "aftermath")
    for stream in (TURNS, DEAD_LETTERS):
        info = await bus.client.jetstream(timeout=5).stream_info(stream.name)
        if info.state.messages:
            wrong[f"messages left in {stream.name}"] = info.state.messages
    await bus.close()
    return wrong
