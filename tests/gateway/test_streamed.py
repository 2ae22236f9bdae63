"""Clients as they are: one that leaves is noticed at once, one that does not read is dropped and can come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import reply_reader
from ops.runtime.bus import Bus
from schemas.records import GetReply, StoredReply
from tests.gateway.conftest import AUTH, KEY, Running, connected, records_peer, running
from tests.gateway.peers import RecordsPeer, StagesPeer
from tests.gateway.spoken import Spoken
from tests.workers.stages import until

LARGE = 64_000


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
    async with running(nats_url, settings_folder, COZY_API__HEADER_WAIT="0.05") as found:
        yield await connected(found)


def open_readers(edge: Running) -> int:
    return sum(not reader.closed for reader in edge.services.readers._open)


async def nobody_reads(edge: Running) -> bool:
    await asyncio.sleep(0)
    return open_readers(edge) == 0


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_before_the_first_word_is_noticed(
    edge: Running, stages: StagesPeer, streamed: bool
) -> None:
    body = {"model": "cozy/default", "messages": [{"role": "user", "content": "Hi"}], "stream": streamed}
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(edge.url + "/v1/chat/completions", json=body, headers=AUTH))
        turn = await stages.next()
        await turn.accept()
        await asyncio.wait((asking,), timeout=0.2)
        assert open_readers(edge) == 1
        asking.cancel()
    await until(lambda: nobody_reads(edge))


async def test_a_client_that_does_not_read_is_dropped_and_can_come_back(
    edge: Running, bus: Bus, desk: RecordsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_reader, "SEND_SECONDS", 0.3)
    made = Spoken().begin(1).say(*("x" * LARGE for _ in range(200))).finish()

    def answer(asked: GetReply) -> StoredReply:
        return made.stored(asked, ended=False)

    desk.answers[GetReply] = answer
    await made.publish(bus)
    path = f"/v1/turns/{made.turn_id}/stream"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rpartition(":")[2]), limit=1024)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n".encode())
    await until(lambda: dropped(edge))
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(200 * LARGE)
    writer.close()
    async with edge.http.get(edge.url + path, headers=AUTH) as again:
        assert (await again.read()).endswith(b"data: [DONE]\n\n")


async def dropped(edge: Running) -> Any:
    await asyncio.sleep(0)
    return not open_readers(edge) and len(edge.services.readers._open)
