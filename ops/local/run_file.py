"""`DATA_DIR/run.json`: which processes run, and where they listen."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from ops.local.files import write_private

# The clock that start times are read against moves in whole seconds.
SAME_START = 2.0
KILL_WAIT, KILL_PAUSE = 5.0, 0.02


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One process that was started."""

    name: str
    pid: int
    url: str
    health_url: str = ""  # where this very process answers /livez, /readyz and /metrics, if it does
    started_at: float = 0.0  # Unix seconds: with the pid it says whether this is still the same process


class RunFile:
    """The list of what was started last under each name, rewritten whole at each change.

    Readable by its owner alone, because the addresses hold passwords.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Entry] = {}

    def record(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        text = msgspec.json.format(msgspec.json.encode(list(self._entries.values())).decode(), indent=2)
        write_private(self._path, text + "\n")

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def read_run_file(path: Path) -> list[Entry]:
    """What the file lists; nothing where there is none. Raises msgspec.DecodeError if it is not one of ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Entry])
    except FileNotFoundError:
        return []


def end_leftovers(path: Path) -> Sequence[str]:
    """Kill what an earlier run listed in `path` and left running; give the names.

    A process counts only if its pid and its start time are the ones recorded, so a stranger that
    was given the pid since is left alone.
    """
    found = [entry for entry in read_run_file(path) if still_runs(entry)]
    for entry in found:
        with suppress(ProcessLookupError):
            os.kill(entry.pid, signal.SIGKILL)
    deadline = time.monotonic() + KILL_WAIT
    while any(map(still_runs, found)) and time.monotonic() < deadline:
        time.sleep(KILL_PAUSE)
    return [entry.name for entry in found]


def still_runs(entry: Entry) -> bool:
    """Whether the very process that was recorded is alive, and more than a corpse that nobody has reaped."""
    try:
        process = psutil.Process(entry.pid)
        same = abs(process.create_time() - entry.started_at) < SAME_START
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
