"""The NATS server that `make run` brings along: JetStream on a local port, its store in the data folder."""

import shutil
import signal
import sys
from pathlib import Path

from ops.local.child import Child, Program, plain_environment, spawn
from ops.local.embedded import ServerFailed, until_started
from ops.local.files import PASSABLE_FOLDER, PRIVATE_FOLDER, make_folder, write_private
from ops.local.readiness import first_line
from ops.local.remembered import remembered_password, remembered_port

USER = "cozy"
STOP_GRACE = 5.0

# No `sync_interval` on purpose: ops/decisions/0009-what-a-power-cut-leaves.md.
CONFIG = """\
# Written at each start; changes made here are lost.
server_name: cozy
host: 127.0.0.1
port: {port}
max_payload: 8MB
# What may wait for one slow reader: some of the largest messages, and not the machine's memory.
max_pending: 128MB
jetstream {{
  store_dir: {store}
  max_file_store: 10GB
  max_memory_store: 256MB
}}
authorization {{
  user: {user}
  password: {password}
}}
"""


class EmbeddedNats:
    """A NATS server with JetStream below `folder`, for this machine's processes that know its password.

    Started again on the same folder it has the same address (unless the port is taken) and its streams,
    however it ended. It dies with the process that started it.
    """

    name = "nats"
    health_url = ""  # it speaks no HTTP

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.log = self._folder / "logs" / "nats.log"
        self.url = ""
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The server's process id. Raises ServerFailed if it was never started."""
        if self._child is None:
            raise ServerFailed("nats was not started")
        return self._child.pid

    async def start(self) -> str:
        """Start it, wait until it answers, give its URL. Raises ServerFailed with the end of its log."""
        return await until_started(self)

    async def launch(self) -> Child:
        """Start its process, without waiting until it answers. The address stays the same for this object."""
        config = self._write_config()
        program = Program(
            name=self.name,
            argv=[nats_server(), "--config", str(config)],
            # A soft limit: the collector works harder above it, instead of letting the heap double.
            env={**plain_environment(), "GOMEMLIMIT": "512MiB"},
            log=self.log,
            cwd=self._folder,
        )
        self._child = await spawn(program)
        return self._child

    async def is_ready(self) -> bool:
        return (await first_line(self.url)).startswith(b"INFO ")

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """End it, within `grace` seconds by its own hand."""
        if self._child:
            await self._child.stop(signal.SIGTERM, grace)

    async def kill(self) -> None:
        """End it as a crash would."""
        if self._child:
            self._child.kill()
            await self._child.wait()

    def _write_config(self) -> Path:
        make_folder(self._folder, PASSABLE_FOLDER)
        home = self._folder / "nats"
        make_folder(home, PRIVATE_FOLDER)
        password = remembered_password(self._folder / "nats.password")
        if not self.url:
            port = remembered_port(self._folder, self.name)
            self.url = f"nats://{USER}:{password}@127.0.0.1:{port}"
            write_private(home / "nats.conf", _config(port, home / "js", password))
        return home / "nats.conf"


def _config(port: int, store: Path, password: str) -> str:
    return CONFIG.format(port=port, store=quoted(str(store)), user=USER, password=quoted(password))


def quoted(text: str) -> str:
    """A string of NATS's configuration language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def nats_server() -> str:
    """The program from the wheel, which installs it beside the interpreter."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerFailed(f"nats-server is not installed beside {sys.executable}: run `make run` once")
    return found
