"""A turn's stream: whoever comes back with its last id, wherever the rest comes from, has seen all of it once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ops.runtime.bus import Bus
from schemas import subjects
from schemas.faults import NotFound
from schemas.ids import new_id
from schemas.records import GetReply, StoredReply
from tests.gateway import spoken
from tests.gateway.conftest import AUTH, Running, connected, records_peer, running
from tests.gateway.peers import RecordsPeer
from tests.gateway.spoken import KINDS, Spoken, is_heard
from tests.workers.stages import until


class Turns:
    """What the records worker knows. `ended`: whether PostgreSQL has the ends already."""

    def __init__(self) -> None:
        self.known: dict[str, Spoken] = {}
        self.ended = True

    def add(self, made: Spoken) -> Spoken:
        self.known[made.turn_id] = made
        return made

    def answer(self, asked: GetReply) -> StoredReply:
        if asked.turn_id not in self.known:
            raise NotFound
        return self.known[asked.turn_id].stored(asked, ended=self.ended)


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
async def desk(nats_url: str, turns: Turns) -> AsyncIterator[RecordsPeer]:
    peer = records_peer()
    peer.answers[GetReply] = turns.answer
    await peer.open(nats_url)
    yield peer
    await peer.close()


@pytest.fixture
async def edge(nats_url: str, bus: Bus, desk: RecordsPeer, settings_folder: Path) -> AsyncIterator[Running]:
    """A gateway on the server that has the streams. Headers are not held back for long."""
    async with running(nats_url, settings_folder, COZY_API__HEADER_WAIT="0.05", COZY_API__HEARTBEAT="0.2") as found:
        yield await connected(found)


def path(made: Spoken) -> str:
    return f"/v1/turns/{made.turn_id}/stream"


async def read(edge: Running, made: Spoken, after: int | None = None, **options: Any) -> bytes:
    headers = {**AUTH, "x-request-id": "the-same"} | ({} if after is None else {"last-event-id": str(after)})
    async with edge.http.get(edge.url + path(made), headers=headers, **options) as answer:
        assert answer.status == 200
        return await answer.read()


def blocks(raw: bytes) -> list[bytes]:
    """The whole events of a stream, comments left out."""
    *whole, _ = raw.replace(b": ping\n", b"").split(b"\n\n")
    return whole


def numbered(raw: bytes) -> list[bytes]:
    """Those with an id, byte for byte."""
    return [block for block in blocks(raw) if block.startswith(b"id: ")]


def last_id(raw: bytes) -> int | None:
    found = numbered(raw)
    return int(found[-1].partition(b"\n")[0][4:]) if found else None


async def undisturbed(edge: Running, bus: Bus, turns: Turns, made: Spoken, source: str) -> bytes:
    """The whole stream, from this source."""
    turns.add(made)
    if source == "stored":
        return await read(edge, made)
    turns.ended = False
    if source == "kept by the stream":
        await made.publish(bus)
        return await read(edge, made)
    reading = asyncio.create_task(read(edge, made))
    await until(lambda: is_heard(bus, made))
    await made.publish(bus)
    return await reading


@pytest.mark.parametrize("kind", KINDS)
async def test_the_stream_is_the_same_live_from_the_stream_and_from_storage(
    edge: Running, bus: Bus, turns: Turns, kind: Callable[[], Spoken]
) -> None:
    made = kind()
    streams = [await undisturbed(edge, bus, turns, made, "live")]
    turns.ended = False
    streams.append(await read(edge, made))
    turns.ended = True
    streams.append(await read(edge, made))
    assert [int(block.partition(b"\n")[0][4:]) for block in numbered(streams[0])] == list(
        range(1, len(numbered(streams[0])) + 1)
    )
    assert numbered(streams[0]) == numbered(streams[1]) == numbered(streams[2])
    assert blocks(streams[0])[-1] == blocks(streams[1])[-1] == blocks(streams[2])[-1]


@pytest.mark.parametrize("source", ["kept by the stream", "stored"])
@pytest.mark.parametrize("kind", KINDS)
async def test_cut_at_every_byte_and_joined_it_is_the_undisturbed_stream(
    edge: Running, bus: Bus, turns: Turns, kind: Callable[[], Spoken], source: str
) -> None:
    made = kind()
    whole = await undisturbed(edge, bus, turns, made, source)
    rest: dict[int | None, bytes] = {}
    for cut in range(len(whole) + 1):
        got = whole[:cut]
        after = last_id(got)
        if after not in rest:  # all that a client tells us is its last id
            rest[after] = await read(edge, made, after)
        joined = numbered(got) + numbered(rest[after])
        assert joined == numbered(whole), (cut, after)
        assert blocks(rest[after])[-1] == blocks(whole)[-1]
    assert len(rest) == len(numbered(whole)) + 1


async def test_a_reader_that_comes_in_the_middle_hears_the_rest_live(edge: Running, bus: Bus, turns: Turns) -> None:
    made = turns.add(spoken.plain())
    turns.ended = False
    await made.publish(bus, 0, 3)
    readings = [asyncio.create_task(read(edge, made, after)) for after in (None, 1, 2, 3)]
    await until(lambda: is_heard(bus, made))
    await made.publish(bus, 3)
    streams = [numbered(await reading) for reading in readings]
    assert (
        streams[0] == [*streams[0][:1], *streams[1]] == [*streams[0][:2], *streams[2]] == [*streams[0][:3], *streams[3]]
    )
    assert len(streams[0]) == 7


async def test_rounds_that_the_stream_has_forgotten_come_from_storage(edge: Running, bus: Bus, turns: Turns) -> None:
    made = turns.add(spoken.tools_of_ours())
    turns.ended = False
    fresh_round = next(i for i, frame in enumerate(made.frames) if frame.epoch == 3)
    await made.publish(bus, fresh_round)
    got = await read(edge, made)
    turns.ended = True
    assert numbered(got) == numbered(await read(edge, made))


async def test_a_hole_is_closed_by_the_owner_who_is_asked_for_a_snapshot(edge: Running, bus: Bus, turns: Turns) -> None:
    made = turns.add(spoken.plain())
    turns.ended = False
    wanted = asyncio.Event()
    await bus.listen(subjects.wanted(made.turn_id), lambda subject, data: wanted.set())
    await made.publish(bus, 0, 2)
    reading = asyncio.create_task(read(edge, made))
    await until(lambda: is_heard(bus, made))
    await made.publish(bus, 4, 5)  # 2 and 3 never got there
    await asyncio.wait_for(wanted.wait(), 3)
    await made.heal(bus)
    await made.publish(bus, 5)
    turns.ended = True
    assert numbered(await reading) == numbered(await read(edge, made))


async def test_a_hole_that_nobody_closes_is_closed_by_storage_at_the_end(edge: Running, bus: Bus, turns: Turns) -> None:
    made = turns.add(spoken.plain())
    turns.ended = False
    await made.publish(bus, 0, 2)
    reading = asyncio.create_task(read(edge, made))
    await until(lambda: is_heard(bus, made))
    turns.ended = True
    await made.publish(bus, 4)
    async with asyncio.timeout(2):
        got = await reading
    assert numbered(got) == numbered(await read(edge, made))


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "+3", "9" * 30, "１"])
@pytest.mark.parametrize("where", ["Last-Event-ID", "starting_after"])
async def test_what_is_no_id_is_refused(edge: Running, turns: Turns, where: str, value: str) -> None:
    made = turns.add(spoken.plain())
    if where == "starting_after":
        problem = await edge.problem("GET", path(made), params={where: value})
    elif not value.isascii():
        return
    else:
        problem = await edge.problem("GET", path(made), headers={**AUTH, where: value})
    assert (problem["status"], problem["code"], problem["param"]) == (400, "VALIDATION_VALUE", where)


async def test_the_header_wins_over_the_parameter(edge: Running, turns: Turns) -> None:
    made = turns.add(spoken.plain())
    assert numbered(await read(edge, made, 3, params={"starting_after": "5"})) == numbered(await read(edge, made, 3))
    assert numbered(await read(edge, made, None, params={"starting_after": "3"})) == numbered(await read(edge, made, 3))


@pytest.mark.parametrize("turn_id", [new_id(), "nonsense"], ids=["unknown", "nonsense"])
async def test_what_is_not_the_callers_is_not_found(edge: Running, turn_id: str) -> None:
    problem = await edge.problem("GET", f"/v1/turns/{turn_id}/stream")
    assert (problem["status"], problem["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_a_turn_that_failed_before_its_first_word_answers_with_its_status(edge: Running, turns: Turns) -> None:
    made = turns.add(Spoken().begin(1).fail())
    assert (await edge.problem("GET", path(made)))["status"] == 502
    assert b'"code":"ENGINE_FAILED"' in blocks(await read(edge, made, 1))[-1]


async def test_a_turn_that_has_not_begun_is_waited_for(edge: Running, bus: Bus, turns: Turns) -> None:
    made = turns.add(spoken.plain())
    turns.ended = False
    async with edge.http.get(edge.url + path(made), headers=AUTH) as answer:
        raw = b""
        while b": ping\n" not in raw:
            raw += await answer.content.readany()
        await made.publish(bus)
        raw += await answer.read()
    assert len(numbered(raw)) == 7


async def test_a_long_reply_comes_page_by_page_from_storage(edge: Running, turns: Turns) -> None:
    made = turns.add(Spoken().begin(1).say(*(f"{i} " + "x" * 2000 for i in range(1000))).finish())
    assert len(numbered(await read(edge, made))) == 1003
    assert len(numbered(await read(edge, made, 900))) == 103


async def test_a_long_reply_comes_in_batches_from_the_stream(edge: Running, bus: Bus, turns: Turns) -> None:
    made = turns.add(Spoken().begin(1).say(*(f"{i} " + "x" * 300 for i in range(3000))).finish())
    turns.ended = False
    await made.publish(bus)
    assert len(numbered(await read(edge, made))) == 3003


async def test_a_draining_gateway_ends_it_at_once_and_takes_no_new_one(edge: Running, bus: Bus, turns: Turns) -> None:
    made = turns.add(spoken.plain())
    turns.ended = False
    await made.publish(bus, 0, 3)
    reading = asyncio.create_task(read(edge, made))
    await until(lambda: is_heard(bus, made))
    edge.services.draining.set()
    edge.services.end_resumable()
    async with asyncio.timeout(1):
        raw = await reading
    assert b"[DONE]" not in raw
    assert b"error" not in raw
    problem = await edge.problem("GET", path(made))
    assert (problem["status"], problem["code"]) == (503, "ENGINE_OVERLOADED")


async def test_while_storage_is_away_it_says_so(edge: Running, turns: Turns, desk: RecordsPeer) -> None:
    await desk.close()
    problem = await edge.problem("GET", path(turns.add(spoken.plain())))
    assert (problem["status"], problem["code"]) in [(503, "STORAGE_UNAVAILABLE"), (401, "AUTH_INVALID")]


async def test_a_client_that_leaves_is_listening_no_more(edge: Running, bus: Bus, turns: Turns) -> None:
    made = turns.add(spoken.plain())
    turns.ended = False
    async with aiohttp.ClientSession() as http, http.get(edge.url + path(made), headers=AUTH) as answer:
        assert answer.status == 200
        assert await is_heard(bus, made)
        answer.close()
    await until(lambda: _not(is_heard(bus, made)))


async def _not(asked: Any) -> bool:
    return not await asked


@pytest.mark.parametrize("ended", [True, False])
async def test_who_has_seen_what_is_gone_is_told_so(edge: Running, bus: Bus, turns: Turns, ended: bool) -> None:
    made = turns.add(spoken.plain())
    turns.ended = ended
    await made.publish(bus, 0, 3)
    last = 7 if ended else 3
    async with asyncio.timeout(5):
        raw = await read(edge, made, last + 1)
    assert b'"code":"ENGINE_OVERLOADED"' in blocks(raw)[-1]
    assert numbered(raw) == []
