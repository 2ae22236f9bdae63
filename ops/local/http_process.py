"""A supervised process of ours that says over HTTP when it is ready: a stage, a gateway, the scripted model server."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.local.child import Child, Program, spawn
from ops.local.readiness import answers_200
from ops.local.remembered import free_port, is_free

READY_PATH = "/readyz"


class HttpProcess:
    """One process, asked for readiness at `{url}{ready_path}`.

    It is given HEALTH_PORT, a free port that stays the same as long as nobody else takes it. With `port`, it
    serves on that port, and its URL says so; its address then never changes. Where the port is `shared` any of those
    who share it may answer there, so this one is asked at its HEALTH_PORT.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        cwd: Path,
        port: int | None = None,
        shared: bool = False,
        ready_path: str = READY_PATH,
    ) -> None:
        self.name = name
        self.log = log
        self.url = f"http://127.0.0.1:{port}" if port else ""
        self.health_url = ""
        self._argv = argv
        self._env = env
        self._cwd = cwd
        self._port = port
        self._shared = shared
        self._ready_path = ready_path
        self._health_port = 0
        self._child: Child | None = None

    async def launch(self) -> Child:
        """Start the process, without waiting until it is ready."""
        if not self._health_port or not is_free(self._health_port):
            self._health_port = free_port()
        # The scripted model server is no process of ours to that extent.
        self.health_url = f"http://127.0.0.1:{self._health_port}" if self._ready_path == READY_PATH else ""
        self.url = f"http://127.0.0.1:{self._port or self._health_port}"
        env = {**self._env, "HEALTH_PORT": str(self._health_port)}
        if self._port:
            env["PORT"] = str(self._port)
        self._child = await spawn(Program(name=self.name, argv=self._argv, env=env, log=self.log, cwd=self._cwd))
        return self._child

    async def is_ready(self) -> bool:
        return await answers_200((self.health_url if self._shared else self.url) + self._ready_path)

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds."""
        if self._child:
            await self._child.stop(signal.SIGTERM, grace)
