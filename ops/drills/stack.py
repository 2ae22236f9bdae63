"""A system of the drill's own: `python -m ops up` in a folder of its own, and signals to its processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from ops.local.files import PASSABLE_FOLDER
from ops.local.launch_settings import PROJECT
from ops.local.remembered import free_port
from ops.local.run_file import Entry, read_run_file, still_runs

KEY, ADMIN_KEY = "sk-cozy-dev", "sk-cozy-admin"
LEASE = 3.0
"""Seconds: what development takes for a lease, unless the drill sets another."""
PERSONALITY = "drill"
POOLS = "generation=3,gateway=2,context_fetch=2,tool_execution=2,memory_writeback=2,records=2"
START_SECONDS, STOP_SECONDS, WELL_SECONDS = 90.0, 30.0, 60.0
LOOK_EVERY = 0.1
ENDED = 130
"""Exit code of a drill that was ended from outside."""
OF_THE_DEVELOPER = ("COZY_", "SCRIPTED_", "OPENAI_", "NATS_URL", "DATABASE_URL", "HEALTH_PORT")
"""Variables that a developer may have set, and that must not reach the system under test."""


class StackFailed(Exception):
    """The system did not start, stop or become well. The message has its last words."""


class Stack:
    """A running system, as an async context manager: started on entry, stopped on leaving, its folder removed.

    `settings` are environment variables on top of development's: with NATS_URL or DATABASE_URL the drill holds that
    server itself. `arguments` are for `python -m ops up`, run in the checkout `project`. With `keep`, or after an
    exception, the folder with every log stays, and `folder` says where.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        pools: str = POOLS,
        keep: bool = False,
        arguments: Sequence[str] = (),
        project: Path = PROJECT,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cozy-drill-")).resolve()
        self.folder.chmod(PASSABLE_FOLDER)
        self.data = self.folder / "data"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.keep = keep
        self._settings = {"COZY_POOLS": pools, "COZY_CONFIG_DIR": str(self._config_folder()), **(settings or {})}
        self._arguments, self._project = arguments, project
        self._process: asyncio.subprocess.Process | None = None

    @property
    def nats_url(self) -> str:
        """Where its NATS is, its own or the drill's."""
        return self._settings.get("NATS_URL") or self.entry("nats").url

    @property
    def database_url(self) -> str:
        """Where its PostgreSQL is, its own or the drill's."""
        return self._settings.get("DATABASE_URL") or self.entry("postgres").url

    @property
    def environment(self) -> dict[str, str]:
        """What the system, and every command about it, runs with."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_DEVELOPER)}
        own = {"APP_ENV": "development", "DATA_DIR": str(self.data), "PORT": self.url.rpartition(":")[2]}
        return {**plain, **own, **self._settings}

    async def __aenter__(self) -> Stack:
        try:
            await self.start()
        except BaseException:
            self.keep = True
            await self.stop()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.stop()
        if kind is None and not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def start(self) -> None:
        """Start everything and wait until it says that it is ready. Raises StackFailed."""
        with self._output.open("wb") as out:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ops", "up", *self._arguments),
                cwd=self._project,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        await self._until(self._is_ready, START_SECONDS, "did not become ready")

    async def stop(self) -> None:
        """End it as Ctrl-C would, and by force where that does not help."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            # Its children are guarded: they die with it.
            self._process.kill()
            await self._process.wait()

    async def drop_dead(self, meanwhile: Callable[[], None]) -> None:
        """Freeze every process at one moment, do `meanwhile`, then kill them all; `start` starts it all again."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        parent.suspend()
        # Its children in turn, until none has had the time to make another.
        frozen: list[psutil.Process] = []
        while fresh := [child for child in parent.children(recursive=True) if child not in frozen]:
            for child in fresh:
                with suppress(psutil.NoSuchProcess):
                    child.suspend()
            frozen += fresh
        await asyncio.to_thread(meanwhile)
        for process in (parent, *frozen):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await self._process.wait()
        await asyncio.to_thread(psutil.wait_procs, frozen, STOP_SECONDS)

    def entries(self) -> list[Entry]:
        """Everything that was started, under its newest pid."""
        return read_run_file(self.data / "run.json")

    def entry(self, name: str) -> Entry:
        """What runs under this name. KeyError where nothing does."""
        return {entry.name: entry for entry in self.entries()}[name]

    def names(self, *pools: str) -> list[str]:
        """The processes of these pools: `generation`, `generation.2` and so on."""
        return sorted(entry.name for entry in self.entries() if entry.name.partition(".")[0] in pools)

    def gateways(self) -> list[str]:
        """The addresses of all gateways; the same one once where they share it."""
        return sorted({self.entry(name).url for name in self.names("gateway")})

    def signal(self, name: str, number: signal.Signals) -> Entry | None:
        """Send a signal to a process; what it was, or None where it does not run at the moment."""
        entry = self.entry(name)
        if not still_runs(entry):
            return None
        try:
            os.kill(entry.pid, number)
        except ProcessLookupError:
            return None
        return entry

    async def until_restarted(self, before: Entry, seconds: float = WELL_SECONDS) -> float:
        """Wait until another process is ready in this one's place; how many seconds it took. Raises StackFailed."""

        async def replaced() -> bool:
            entry = self.entry(before.name)
            return entry.pid != before.pid and await answers(entry)

        began = time.monotonic()
        await self._until(replaced, seconds, f"{before.name} was not restarted")
        return time.monotonic() - began

    async def until_well(self, seconds: float = WELL_SECONDS) -> None:
        """Wait until every process is there and ready. Raises StackFailed."""

        async def well() -> bool:
            return all([await answers(entry) for entry in self.entries()])

        await self._until(well, seconds, "did not become well")

    def errors(self) -> list[str]:
        """Every line that one of our processes logged as an error, with the process's name before it."""
        found = []
        for path in sorted((self.data / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            found += [f"{path.stem}: {line}" for line in lines if '"level":"error"' in line]
        return found

    @property
    def _output(self) -> Path:
        return self.folder / "up.out"

    def _config_folder(self) -> Path:
        """The shipped configuration with one personality more, who may use the tools that drills count by."""
        folder = self.folder / "config"
        shutil.copytree(PROJECT / "ops" / "config", folder)
        people = folder / "personalities"
        text = (people / "default.yaml").read_text()
        text = text.replace("\nid: default\n", f"\nid: {PERSONALITY}\n")
        text = text.replace("\n  - clock\n", "\n  - clock\n  - ledger_keyed\n  - ledger_once\n")
        (people / f"{PERSONALITY}.yaml").write_text(text)
        return folder

    async def _is_ready(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise StackFailed(f"the system ended. {self._last_words()}")
        return "CozyEngine is ready" in self._output.read_text(errors="replace")

    async def _until(self, is_so: Callable[[], Awaitable[bool]], seconds: float, complaint: str) -> None:
        end = time.monotonic() + seconds
        while not await is_so():
            if time.monotonic() > end:
                raise StackFailed(f"{complaint} within {seconds:g} s. {self._last_words()}")
            await asyncio.sleep(LOOK_EVERY)

    def _last_words(self) -> str:
        lines = self._output.read_text(errors="replace").splitlines()[-20:]
        return f"Its folder is {self.folder}, its last words:\n" + "\n".join(lines)


def run(drill: Coroutine[Any, Any, int]) -> int:
    """Run a drill to its exit code. SIGTERM ends it as Ctrl-C does: what it started is stopped first."""

    async def cancellable() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await drill

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        return ENDED


async def answers(entry: Entry) -> bool:
    """Whether a process is alive and, where it speaks HTTP, says that it is ready."""
    if not still_runs(entry):
        return False
    path = {"scripted": "/v1/models"}.get(entry.name, "/readyz")
    # A port may be shared by several gateways; its own address tells which of them answers.
    url = entry.health_url or entry.url
    if not url.startswith("http"):
        return True
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http,
            http.get(url + path) as answer,
        ):
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
