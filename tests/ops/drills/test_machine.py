"""A disk whose power is cut keeps what was synced and nothing else; a cut cable loses packets without a word."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.drills.machine import Disk, Island, NotAllowed, mounted, require_root

ASK = "import socket, sys; s = socket.create_connection(('{host}', {port}), timeout=0.5); print(s.recv(5).decode())"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        with mounted(tmp_path) as disk:
            yield disk
    except NotAllowed as why:
        pytest.skip(str(why))


@pytest.fixture
def island() -> Iterator[Island]:
    try:
        island = Island("cozytest", 2)
    except NotAllowed as why:
        pytest.skip(str(why))
    yield island
    island.sink()


def write(path: Path, *, synced: bool) -> None:
    with path.open("w") as file:
        file.write("words " * 1000)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def test_a_power_cut_leaves_what_was_synced_and_nothing_else(disk: Disk) -> None:
    write(disk.place / "synced", synced=True)
    write(disk.place / "not-synced", synced=False)
    disk.cut_power()
    with pytest.raises(OSError, match="Input/output error"):
        write(disk.place / "too-late", synced=True)
    disk.mount_again()
    assert (disk.place / "synced").read_text() == "words " * 1000
    assert not (disk.place / "too-late").exists()
    lazy = disk.place / "not-synced"
    assert not lazy.exists() or lazy.read_text() == ""


def test_a_cut_cable_loses_what_is_sent_and_a_joined_one_carries_it_again(island: Island) -> None:
    with socket.create_server((island.here(1), 0)) as server:
        port = server.getsockname()[1]
        assert asked(island, server, port) == "hello"
        island.cut(1)
        assert "timed out" in asked(island, server, port)
        island.join(1)
        assert asked(island, server, port) == "hello"


def asked(island: Island, server: socket.socket, port: int) -> str:
    """What somebody on the island is answered from here, or why they are not."""
    command = [*island.entrance, sys.executable, "-c", ASK.format(host=island.here(1), port=port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as caller:
        server.settimeout(2)
        with contextlib.suppress(TimeoutError):
            server.accept()[0].sendall(b"hello")
        out, err = caller.communicate(timeout=10)
    return out.strip() or err.strip().splitlines()[-1]


def test_who_is_not_root_or_lacks_a_program_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotAllowed, match="needs root"):
        require_root()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(NotAllowed, match="needs no-such-program"):
        require_root("no-such-program")
