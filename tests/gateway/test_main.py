"""`python -m gateway` as a process: it lives from its first moment, says why it cannot start, and ends in order."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from ops.local.embedded_nats import EmbeddedNats
from schemas.ids import new_id
from tests.gateway.conftest import AUTH, connected, running
from tests.gateway.peers import RecordsPeer, StagesPeer

ROOT = Path(__file__).parents[2]


class GatewayProcess:
    """A gateway of its own process, and the lines it logged."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def logged(self, event: str) -> dict[str, Any]:
        """The first line of this event, waited for; every line is JSON."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while not (found := [line for line in self.lines if line["event"] == event]):
                line = await self.process.stdout.readline()
                assert line, f"it ended before it said {event}: {self.lines}"
                self.lines.append(json.loads(line))
        return found[0]

    async def url(self) -> str:
        return f"http://127.0.0.1:{(await self.logged('listening'))['port']}"

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def started(folder: Path, nats_url: str, **environ: str) -> AsyncIterator[GatewayProcess]:
    settings = {"APP_ENV": "test", "PORT": "0", "NATS_URL": nats_url, "COZY_CONFIG_DIR": str(folder), **environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", cwd=ROOT, stdout=PIPE, stderr=PIPE, limit=1 << 20,
        env={**os.environ, "SCRIPTED_URL": "http://127.0.0.1:9", **settings},
    )  # fmt: skip
    try:
        yield GatewayProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def status(url: str, **options: Any) -> int:
    async with aiohttp.ClientSession() as http, http.get(url, **options) as response:
        return response.status


async def test_it_lives_without_a_bus_becomes_ready_with_one_and_ends_at_once(
    mortal_nats: EmbeddedNats, settings_folder: Path
) -> None:
    await mortal_nats.kill()
    async with started(settings_folder, mortal_nats.url) as gateway:
        url = await gateway.url()
        assert await status(f"{url}/livez") == 200
        assert await status(f"{url}/readyz") == 503
        await mortal_nats.start()
        await gateway.logged("bus_connected")
        assert await status(f"{url}/readyz") == 200
        watched = f"http://127.0.0.1:{(await gateway.logged('health_served'))['port']}"
        for path in ("/livez", "/readyz", "/metrics"):
            assert await status(watched + path) == 200
        gateway.process.terminate()
        async with asyncio.timeout(3):
            assert await gateway.ended() == 0


async def test_it_ends_in_order_while_it_still_looks_for_the_bus(settings_folder: Path) -> None:
    async with started(settings_folder, "nats://127.0.0.1:1") as gateway:
        await gateway.url()
        gateway.process.terminate()
        async with asyncio.timeout(3):
            assert await gateway.ended() == 0


async def test_an_address_that_is_taken_ends_it_with_a_line_that_says_so(settings_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with started(settings_folder, "nats://127.0.0.1:1", PORT=str(port)) as gateway:
            assert (await gateway.logged("address_not_available"))["port"] == port
            assert await gateway.ended() == 1


async def test_a_wrong_setting_ends_it_naming_the_setting(settings_folder: Path) -> None:
    async with started(settings_folder, "nats://127.0.0.1:1", COZY_API__HEARTBEAT="soon") as gateway:
        assert await gateway.ended() == 78
        assert gateway.process.stderr is not None
        assert b"COZY_API__HEARTBEAT" in await gateway.process.stderr.read()


async def test_a_stream_that_is_open_is_finished_before_it_ends(
    nats: EmbeddedNats, records: RecordsPeer, settings_folder: Path
) -> None:
    stages = StagesPeer()
    await stages.open(nats.url)
    body = {"model": "cozy/default", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with started(settings_folder, nats.url) as gateway, aiohttp.ClientSession() as http:
        url = await gateway.url()
        await gateway.logged("bus_connected")
        asking = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body, headers=AUTH))
        turn = await stages.next()
        await turn.accept()
        await turn.say("Good")
        response = await asking
        gateway.process.terminate()
        await gateway.logged("draining")
        await turn.say("bye")
        await turn.finish()
        text = await response.text()
        assert '"Good"' in text
        assert '"bye"' in text
        assert text.endswith("data: [DONE]\n\n")
        assert await gateway.ended() == 0
    await stages.close()


async def test_a_stream_that_outlasts_the_grace_is_told_so(
    nats: EmbeddedNats, records: RecordsPeer, settings_folder: Path
) -> None:
    stages = StagesPeer()
    await stages.open(nats.url)
    body = {"model": "cozy/default", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with (
        started(settings_folder, nats.url, COZY_API__STREAM_GRACE="0.5") as gateway,
        aiohttp.ClientSession() as http,
    ):
        url = await gateway.url()
        await gateway.logged("bus_connected")
        asking = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body, headers=AUTH))
        turn = await stages.next()
        await turn.accept()
        await turn.say("Good")
        response = await asking
        gateway.process.terminate()
        last = (await response.text()).strip().split("\n\n")[-1]
        error = json.loads(last.removeprefix("data: "))["error"]
        assert (error["code"], error["request_id"]) == ("ENGINE_OVERLOADED", response.headers["x-request-id"])
        assert f"GET {response.headers['location']}/stream" in error["message"]
        assert await gateway.ended() == 0
    await stages.close()


async def test_a_whole_answer_that_outlasts_the_grace_may_be_asked_for_again(
    nats: EmbeddedNats, records: RecordsPeer, settings_folder: Path
) -> None:
    stages = StagesPeer()
    await stages.open(nats.url)
    body = {
        "model": "cozy/default",
        "messages": [{"role": "user", "content": "hi"}],
        "cozy": {"session_id": new_id()},
    }
    async with (
        started(settings_folder, nats.url, COZY_API__STREAM_GRACE="0.5") as gateway,
        aiohttp.ClientSession() as http,
    ):
        url = await gateway.url()
        await gateway.logged("bus_connected")
        asking = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body, headers=AUTH))
        turn = await stages.next()
        await turn.accept()
        gateway.process.terminate()
        response = await asking
        assert response.status == 503
        assert response.headers.get("x-should-retry") != "false", "the repeat is given the reply of the same turn"
        assert await gateway.ended() == 0
    await stages.close()


async def test_asked_for_help_it_helps_and_does_not_start(settings_folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway", "--help", cwd=ROOT, stdout=PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert b"takes no arguments" in out


async def test_who_asks_after_the_grace_is_sent_away_and_not_left_hanging(
    nats: EmbeddedNats, records: RecordsPeer, settings_folder: Path
) -> None:
    body = {"model": "cozy/default", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with running(nats.url, settings_folder) as found:
        gateway = await connected(found)
        gateway.services.end_readers()
        problem = await gateway.problem("POST", "/v1/chat/completions", json=body)
        assert (problem["status"], problem["code"]) == (503, "ENGINE_OVERLOADED")
