"""How the tests of the local servers and the supervisor watch what happens."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

LIMIT = 10.0


class Told:
    """What the supervisor said, and a way to wait until it says something."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        task = asyncio.create_task(self._wake())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until(self, words: str, times: int = 1) -> None:
        """Wait until `words` were said that often."""

        def said() -> bool:
            return sum(words in line for line in self.lines) >= times

        async with asyncio.timeout(LIMIT), self._news:
            await self._news.wait_for(said)

    async def _wake(self) -> None:
        async with self._news:
            self._news.notify_all()


def alive(pid: int) -> bool:
    """Whether that process runs; one that is dead and not yet reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that tells nobody when it happens: another process's doing."""
    async with asyncio.timeout(LIMIT):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def marks_in(path: Path) -> list[dict[str, Any]]:
    """What stand-ins noted in their common file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def passable_folder() -> Iterator[Path]:
    """A data folder that root's PostgreSQL, which is another user, can reach; pytest's own are closed to it."""
    path = Path(tempfile.mkdtemp(prefix="cozy-test-")).resolve()
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)
