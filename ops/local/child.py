"""One process of ours: started under guard, its output in a log file, ended within a given time."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ops.local.files import PRIVATE_FILE, PRIVATE_FOLDER, make_folder

GUARD = Path(__file__).with_name("guarded.py")
LOG_LIMIT = 50 * 1024 * 1024
TAIL_BYTES, TAIL_LINES = 16 * 1024, 20
# What even SIGKILL may take: a process inside the kernel dies when it comes out.
KILL_WAIT = 1.0
SIGNAL_NAMES = {number.value: number.name for number in signal.Signals}


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, and where it may leave its words."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    cwd: Path
    user: tuple[int, int] | None = None  # uid and gid to run as, where we are root; argv[0] is then a path
    last_signal: signal.Signals = signal.SIGKILL  # what it gets if we die without stopping it


class Child:
    """A running (or ended) process, leader of a group of its own so that a Ctrl-C reaches only us."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, log_start: int) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start
        self.pid = process.pid
        self.started_at = _started_at(process.pid)
        self._ended = asyncio.create_task(self._end())

    @property
    def running(self) -> bool:
        return not self._ended.done()

    @property
    def code(self) -> int | None:
        """The exit code, minus the signal's number where one ended it; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it has ended; give its code."""
        return await asyncio.shield(self._ended)

    async def stop(self, stop_signal: signal.Signals, grace: float) -> None:
        """Ask with `stop_signal`; what still runs after `grace` seconds is killed."""
        if self.running:
            # Not by asyncio's way, which reaps a process that has just ended and so loses its exit code.
            with suppress(ProcessLookupError):
                os.kill(self.pid, stop_signal)
                # One that was frozen by a signal would not hear of it.
                os.kill(self.pid, signal.SIGCONT)
        if not await self._ends_within(grace):
            self.kill()
            await self._ends_within(KILL_WAIT)

    def kill(self) -> None:
        """SIGKILL for the process and what it started in its group."""
        if self.running:
            _kill_group(self.pid)

    def describe_exit(self) -> str:
        if self.code is not None and self.code < 0:
            return f"was ended by {SIGNAL_NAMES.get(-self.code, f'signal {-self.code}')}"
        return f"exited with code {self.code}"

    def last_words(self) -> str:
        """Where its log is, and the last lines that were written there since it was started."""
        return last_words(self._log, self._log_start)

    async def _end(self) -> int:
        code = await self._process.wait()
        # What a process started does not outlive it.
        _kill_group(self.pid)
        return code

    async def _ends_within(self, seconds: float) -> bool:
        await asyncio.wait({self._ended}, timeout=max(seconds, 0))
        return not self.running


async def spawn(program: Program) -> Child:
    """Start `program`, appending its output to its log. A program that cannot be run ends with 127."""
    uid, gid = program.user or (-1, -1)
    guard = [os.getpid(), int(program.last_signal), uid, gid]
    out = _open_log(program.log)
    log_start = os.fstat(out).st_size
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(GUARD), *map(str, guard), *program.argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=program.cwd,
            env=program.env,
            start_new_session=True,
        )
    finally:
        os.close(out)
    return Child(process, program.log, log_start)


async def run_to_end(program: Program, limit: float) -> Child:
    """Run `program` until it has ended. It is killed after `limit` seconds, or when we are cancelled."""
    child = await spawn(program)
    try:
        await asyncio.wait_for(child.wait(), limit)
        return child
    except TimeoutError:
        return child
    finally:
        await child.stop(signal.SIGKILL, KILL_WAIT)


def last_words(log: Path, since: int = 0) -> str:
    """Where a log is, and its last lines, indented for the terminal; none from before the byte `since`."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    lines = text.splitlines()[-TAIL_LINES:] or ["(nothing)"]
    return "\n".join([f"The end of {log}:", *(f"    {line}" for line in lines)])


def plain_environment() -> dict[str, str]:
    """What a server of another make needs to run; our keys and addresses are none of its business."""
    wanted = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in wanted if name in os.environ}


def _open_log(path: Path) -> int:
    make_folder(path.parent, PRIVATE_FOLDER)
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)


def _started_at(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return time.time()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
