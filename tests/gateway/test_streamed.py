"""Clients as they are: one that leaves is noticed at once, one that does not read is dropped and can come back, one
that is sent to another gateway has the time to get there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from litestar.types import Message
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from gateway import patience, reply_reader, sse
from gateway.readers import Readers
from gateway.records_client import Records
from gateway.streamed import ABORT, StreamedAnswer, Watch
from ops.runtime.bus import Bus
from ops.runtime.settings import Api
from schemas.records import GetReply, StoredReply
from tests.gateway import spoken
from tests.gateway.conftest import AUTH, KEY, Running, connected, records_peer, running
from tests.gateway.peers import RecordsPeer, StagesPeer
from tests.gateway.spoken import Spoken, is_heard
from tests.workers.stages import until

LARGE = 64_000
GRACE = "2"


@pytest.fixture
async def desk(nats_url: str) -> AsyncIterator[RecordsPeer]:
    peer = records_peer()
    await peer.open(nats_url)
    yield peer
    await peer.close()


@pytest.fixture
async def stages(nats_url: str) -> AsyncIterator[StagesPeer]:
    peer = StagesPeer()
    await peer.open(nats_url)
    yield peer
    await peer.close()


@pytest.fixture
async def edge(nats_url: str, bus: Bus, desk: RecordsPeer, settings_folder: Path) -> AsyncIterator[Running]:
    settings = {"COZY_API__HEADER_WAIT": "0.05", "COZY_API__STREAM_GRACE": GRACE}
    async with running(nats_url, settings_folder, **settings) as found:
        yield await connected(found)


def open_readers(edge: Running) -> int:
    return sum(not reader.closed for reader in edge.services.readers._open)


async def nobody_reads(edge: Running) -> bool:
    await asyncio.sleep(0)
    return open_readers(edge) == 0


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_before_the_first_word_is_noticed(
    edge: Running, stages: StagesPeer, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SILENCE", (600.0,))  # or the look into storage, which knows no such turn, ends it
    body = {"model": "cozy/default", "messages": [{"role": "user", "content": "Hi"}], "stream": streamed}
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(edge.url + "/v1/chat/completions", json=body, headers=AUTH))
        turn = await stages.next()
        await turn.accept()
        await asyncio.wait((asking,), timeout=0.2)
        assert open_readers(edge) == 1
        asking.cancel()
    await until(lambda: nobody_reads(edge))


async def test_a_client_that_takes_nothing_for_too_long_is_cut_off_and_nothing_more_is_read_for_it(bus: Bus) -> None:
    made, cut, sending = spoken.plain(), asyncio.Event(), asyncio.Event()
    reader = Readers().make(bus, Records(lambda: bus), turn_id=made.turn_id, user_id="ann", shard=0)
    chunks = sse.ChunkStream(turn_id=made.turn_id, model="m", created=1, cozy={}, include_usage=False)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sending.set()
            await cut.wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    answer = StreamedAnswer(reader, chunks, made.said[:1], Watch(receive, reader), api=Api(), request_id=None)
    scope: Any = {"type": "http", "state": {ABORT: cut.set}}
    answering = asyncio.create_task(answer(scope, receive, send))
    await sending.wait()
    since = asyncio.get_running_loop().time()
    reader.look_at(since + reply_reader.SEND_SECONDS - 1)
    assert not cut.is_set()
    reader.look_at(since + reply_reader.SEND_SECONDS + 1)
    async with asyncio.timeout(5):
        await answering
    assert cut.is_set()


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0


async def test_a_client_that_does_not_read_is_dropped_and_can_come_back(
    edge: Running, bus: Bus, desk: RecordsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_reader, "SEND_SECONDS", 0.3)
    stalled, streams = counted("cozy_stalled_clients_total"), counted("cozy_open_streams")
    made = Spoken().begin(1).say(*("x" * LARGE for _ in range(200))).finish()

    def answer(asked: GetReply) -> StoredReply:
        return made.stored(asked, ended=False)

    async def dropped() -> bool:
        await asyncio.sleep(0)
        return counted("cozy_stalled_clients_total") > stalled and counted("cozy_open_streams") == streams

    desk.answers[GetReply] = answer
    await made.publish(bus)
    path = f"/v1/turns/{made.turn_id}/stream"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rpartition(":")[2]), limit=1024)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
    await until(dropped)  # all that was held for it is free, though it has not read a byte
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(200 * LARGE)
    writer.close()
    async with edge.http.get(edge.url + path, headers=AUTH) as again:
        assert (await again.read()).endswith(b"data: [DONE]\n\n")


async def test_a_client_that_is_sent_to_another_gateway_counts_as_listening_until_it_can_be_there(
    edge: Running, bus: Bus, desk: RecordsPeer
) -> None:
    made = spoken.plain()
    desk.answers[GetReply] = lambda asked: made.stored(asked, ended=False)
    await made.publish(bus, 0, 3)

    async def is_forgotten() -> bool:
        return not await is_heard(bus, made)

    with capture_logs() as lines:
        async with edge.http.get(f"{edge.url}/v1/turns/{made.turn_id}/stream", headers=AUTH) as answer:
            edge.services.end_resumable()
            assert b"[DONE]" not in await answer.read()
        assert await is_heard(bus, made)
        await until(is_forgotten)
    assert "client_left" not in [line["event"] for line in lines]
