"""The whole system as people start it: `python -m ops up` in a process of its own, with everything it brings along."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import psutil

from ops.local.launch_settings import PROJECT
from ops.local.remembered import free_port
from ops.local.run_file import Entry, read_run_file, still_runs

KEY, ADMIN_KEY = "sk-cozy-dev", "sk-cozy-admin"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
RESTART_SECONDS = 30.0
LOOK_EVERY = 0.05
OF_THE_DEVELOPER = ("COZY_", "SCRIPTED_", "OPENAI_", "NATS_URL", "DATABASE_URL", "HEALTH_PORT")
"""Variables that a developer may have set, and that must not reach the stack under test."""

Answer = tuple[int, str, str]
"""Status, output and errors of a command."""


class Stack:
    """A running system. `settings` are environment variables on top of a plain environment."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.data_dir = folder
        self.url = ""
        self.output = folder.with_suffix(".out")
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the system, and every command about it, runs with."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_DEVELOPER)}
        return {**plain, "APP_ENV": "development", "DATA_DIR": str(self.data_dir), **self._settings}

    @property
    def logs(self) -> Path:
        """The folder with a log for every process."""
        return self.data_dir / "logs"

    async def start(self) -> None:
        """Start everything, again at the same address, and wait until it says that it is ready.

        Raises AssertionError with its last words.
        """
        self.url = self.url or f"http://127.0.0.1:{free_port()}"
        with self.output.open("wb") as out:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ops", "up"),
                cwd=PROJECT,
                env={**self.environment, "PORT": self.url.rpartition(":")[2]},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        await until(self._is_ready, START_SECONDS, self._last_words)

    async def stop(self) -> float:
        """End it as Ctrl-C would; how many seconds that took. Raises AssertionError where anything is left."""
        assert self._process is not None
        descendants = psutil.Process(self._process.pid).children(recursive=True)
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self._process.wait(), 3 * STOP_SECONDS)
        finally:
            left = [process.cmdline() for process in descendants if _is_alive(process)]
            await self.kill()
        took = time.monotonic() - began
        assert left == [], f"still there after the stop: {left}"
        assert code == 0, self._last_words()
        return took

    async def kill(self) -> None:
        """End whatever of it is left, after a test that failed; its guards end the rest."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def entry(self, name: str) -> Entry:
        """What runs under this name, as of `run.json`."""
        return next(entry for entry in read_run_file(self.data_dir / "run.json") if entry.name == name)

    def pid(self, name: str) -> int:
        """Its process id."""
        return self.entry(name).pid

    def signal(self, name: str, number: signal.Signals) -> Entry:
        """Send a signal to one process; what it was."""
        entry = self.entry(name)
        assert still_runs(entry), f"{name} does not run"
        os.kill(entry.pid, number)
        return entry

    async def until_restarted(self, before: Entry) -> float:
        """Wait until the supervisor has replaced that process and the new one is ready; how many seconds it took."""

        async def replaced() -> bool:
            entry = self.entry(before.name)
            return entry.pid != before.pid and await self._answers(entry)

        began = time.monotonic()
        await until(replaced, RESTART_SECONDS, lambda: f"{before.name} was not restarted. {self._last_words()}")
        return time.monotonic() - began

    async def until_well(self) -> None:
        """Wait until everything is ready and `/health` says ok."""

        async def well() -> bool:
            entries = read_run_file(self.data_dir / "run.json")
            answers = [await self._answers(entry) for entry in entries]
            return all(answers) and await _says_ok(self.url + "/health")

        await until(well, RESTART_SECONDS, lambda: f"the stack did not become well. {self._last_words()}")

    async def ops(self, *arguments: str, **environment: str) -> Answer:
        """Run `python -m ops ...` beside the running system, which it finds by its data folder."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops", *arguments),
            cwd=PROJECT,
            env={**self.environment, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode or 0, out.decode(), err.decode()

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self._last_words()
        return "CozyEngine is ready" in self.output.read_text()

    async def _answers(self, entry: Entry) -> bool:
        if not still_runs(entry):
            return False
        path = {"scripted": "/v1/models"}.get(entry.name, "/readyz")
        return not entry.url.startswith("http") or await _says_ok(entry.url + path)

    def _last_words(self) -> str:
        return "Its last words:\n" + "\n".join(self.output.read_text().splitlines()[-30:])


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float, complaint: Callable[[], str]) -> None:
    """Wait for something that tells nobody when it happens. Raises AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not await is_so():
        assert time.monotonic() < end, complaint()
        await asyncio.sleep(LOOK_EVERY)


async def _says_ok(url: str) -> bool:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http,
            http.get(url) as answer,
        ):
            return answer.status == 200 and (not url.endswith("/health") or (await answer.json())["status"] == "ok")
    except (aiohttp.ClientError, TimeoutError):
        return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
