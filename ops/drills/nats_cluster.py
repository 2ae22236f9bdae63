"""Three NATS servers that form a JetStream cluster on this machine, each of which can be killed and come back."""

from __future__ import annotations

import asyncio
import secrets
import signal
from pathlib import Path

import msgspec
import nats

from ops.local.child import Child, Program, plain_environment, spawn
from ops.local.embedded_nats import USER, nats_server, quoted
from ops.local.files import PRIVATE_FOLDER, make_folder, write_private
from ops.local.readiness import until
from ops.local.remembered import free_port

SIZE = 3
START_SECONDS = 30.0
STOP_GRACE = 5.0

CONFIG = """\
server_name: {name}
host: 127.0.0.1
port: {port}
max_payload: 8MB
jetstream {{ store_dir: {store}, max_file_store: 10GB, max_memory_store: 256MB }}
authorization {{ user: {user}, password: {password} }}
cluster {{
  name: drill
  listen: "127.0.0.1:{route}"
  authorization {{ user: {user}, password: {password} }}
  routes: [ {routes} ]
}}
"""


class _Led(msgspec.Struct):
    leader: str = ""


class _Info(msgspec.Struct):
    cluster: _Led | None = None


class Node:
    """One server of the cluster. Started again it has the same address and its store."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.port, self.route = free_port(), free_port()
        self._child: Child | None = None

    async def start(self) -> None:
        """Start its process, without waiting until it answers."""
        config = self.folder / f"{self.name}.conf"
        log = self.folder / "logs" / f"{self.name}.log"
        argv = [nats_server(), "--config", str(config)]
        environment = {**plain_environment(), "GOMEMLIMIT": "512MiB"}
        self._child = await spawn(Program(name=self.name, argv=argv, env=environment, log=log, cwd=self.folder))

    async def kill(self) -> None:
        """End it as a crash would."""
        if self._child:
            self._child.kill()
            await self._child.wait()

    async def stop(self) -> None:
        """End it in good order."""
        if self._child:
            await self._child.stop(signal.SIGTERM, STOP_GRACE)


class NatsCluster:
    """`url` names all servers, as NATS_URL does."""

    def __init__(self, folder: Path) -> None:
        self._password = secrets.token_urlsafe(16)
        make_folder(folder, PRIVATE_FOLDER)
        self.nodes = {name: Node(name, folder) for name in (f"nats-{number}" for number in range(1, SIZE + 1))}
        routes = ", ".join(
            quoted(f"nats://{USER}:{self._password}@127.0.0.1:{node.route}") for node in self.nodes.values()
        )
        for node in self.nodes.values():
            write_private(folder / f"{node.name}.conf", self._config(node, routes))
        self.url = ",".join(self._address(node) for node in self.nodes.values())

    async def start(self) -> None:
        """Start all, and wait until they have elected who leads. Raises TimeoutError."""
        await asyncio.gather(*(node.start() for node in self.nodes.values()))
        async with asyncio.timeout(START_SECONDS):
            await until(self._is_formed)

    async def leader_of(self, stream: str) -> str:
        """The name of the server that leads a stream's copies; empty while there is none."""
        async with await nats.connect(self.url.split(","), connect_timeout=2, error_cb=_quiet) as client:
            answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=2)
        info = msgspec.json.decode(answer.data, type=_Info)
        return info.cluster.leader if info.cluster else ""

    async def stop(self) -> None:
        """End all of them."""
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))

    async def _is_formed(self) -> bool:
        """Whether every server takes part and JetStream answers through it."""
        return all([await self._answers(node) for node in self.nodes.values()])

    async def _answers(self, node: Node) -> bool:
        try:
            async with await nats.connect(
                self._address(node), connect_timeout=1, allow_reconnect=False, error_cb=_quiet
            ) as client:
                answer = await client.request("$JS.API.INFO", b"", timeout=1)
        except (nats.errors.Error, OSError, TimeoutError):
            return False
        return b'"error"' not in answer.data

    def _address(self, node: Node) -> str:
        return f"nats://{USER}:{self._password}@127.0.0.1:{node.port}"

    def _config(self, node: Node, routes: str) -> str:
        return CONFIG.format(
            name=node.name,
            port=node.port,
            route=node.route,
            store=quoted(str(node.folder / node.name)),
            user=USER,
            password=quoted(self._password),
            routes=routes,
        )


async def _quiet(error: Exception) -> None:
    """A server that is still starting refuses; asking again is all there is to it."""
