"""A misbehaving chat server of its own process, for the load program to drive."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest

SCRIPT = Path(__file__).with_name("misbehaving.py")


class Server(msgspec.Struct, frozen=True):
    url: str
    pid: int

    def seen(self) -> dict[str, Any]:
        """What it was asked so far; asking counts as one connection and one open request."""
        with urlopen(f"{self.url}/seen") as answer:
            seen: dict[str, Any] = json.load(answer)
        return seen

    def forget(self) -> None:
        """Forget what it was asked so far."""
        with urlopen(f"{self.url}/forget"):
            pass


@contextmanager
def running() -> Iterator[Server]:
    with subprocess.Popen([sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid)
        process.kill()


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[Server, Server]]:
    with running() as one, running() as other:
        yield one, other


@pytest.fixture
def server(servers: tuple[Server, Server]) -> Server:
    """A server that was asked nothing yet."""
    servers[0].forget()
    return servers[0]


@pytest.fixture
def other_server(servers: tuple[Server, Server]) -> Server:
    """A second one."""
    servers[1].forget()
    return servers[1]
