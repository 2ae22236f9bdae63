"""One gateway more beside the running system: for what must not depend on which gateway one happens to ask."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from ops.local.launch_settings import PROJECT
from ops.local.remembered import free_port
from tests.journeys.stack import Stack, until


@dataclass
class Gateway:
    """A gateway of the test's own, which it may kill."""

    url: str
    process: asyncio.subprocess.Process

    async def kill(self) -> None:
        """As the power does."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def another_gateway(stack: Stack, http: aiohttp.ClientSession) -> AsyncIterator[Gateway]:
    """It answers when this begins, and is gone when it ends."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = {
        **stack.environment,
        "NATS_URL": stack.entry("nats").url,
        "SCRIPTED_URL": stack.entry("scripted").url,
        "PORT": url.rpartition(":")[2],
    }
    with (stack.data_dir.parent / "another-gateway.log").open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway"), cwd=PROJECT, env=environment, stdout=out, stderr=out
        )
    gateway = Gateway(url, process)

    async def answers() -> bool:
        try:
            async with http.get(url + "/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    try:
        await until(answers, 20, lambda: "the other gateway did not start")
        yield gateway
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
