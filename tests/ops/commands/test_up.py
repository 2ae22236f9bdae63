"""ops/commands/up.py: the whole start and stop, as `make run` has it, with stand-ins for our own processes."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops.local.readiness import answers_200
from ops.local.remembered import free_port
from tests.ops.local import stand_in
from tests.ops.local.watching import LIMIT, alive, marks_in, passable_folder, until

# No server of our own, for tests that are about something else.
WITHOUT_SERVERS = {
    "NATS_URL": "nats://elsewhere",
    "DATABASE_URL": "postgresql://elsewhere",
    "OPENAI_BASE_URL": "http://x",
}
STAND_IN = Path(stand_in.__file__)


class Up:
    """A running `python -m ops up`."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path) -> None:
        self._process = process
        self.data = data
        self.words = ""

    async def until(self, words: str, times: int = 1) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(2 * LIMIT):
            while self.words.count(words) < times:
                line = await self._process.stdout.readline()
                assert line, f"it ended without saying {words!r}:\n{self.words}"
                self.words += line.decode()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self, *signals: signal.Signals) -> int:
        """Send the signals, and give the exit code."""
        for number in signals:
            self.send(number)
        rest, _ = await asyncio.wait_for(self._process.communicate(), 2 * LIMIT)
        self.words += rest.decode()
        return self._process.returncode or 0

    def listed(self) -> dict[str, dict[str, Any]]:
        return {entry["name"]: entry for entry in json.loads((self.data / "run.json").read_text())}

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()


Start = Callable[..., Coroutine[Any, Any, Up]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with passable_folder() as path:
        yield path


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[Start]:
    """Start `up` on a Procfile's text."""
    started: list[Up] = []

    async def start_up(procfile: str, *arguments: str, **env: str) -> Up:
        path = folder / "Procfile"
        path.write_text(procfile)
        data = Path(env.pop("DATA_DIR", str(folder / "data")))
        environment = {**os.environ, "PORT": str(free_port()), **env, "DATA_DIR": str(data)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops", "up", "--procfile", str(path), *arguments),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        up = Up(process, data)
        started.append(up)
        return up

    yield start_up
    for up in started:
        up.kill()


def line(folder: Path, name: str, *manners: str) -> str:
    return f"{name.partition('.')[0]}: python {STAND_IN} {name} {folder / 'marks'} {' '.join(manners)}\n"


async def test_everything_is_started_listed_and_ended_without_a_trace(start: Start, folder: Path) -> None:
    release = "release: python -c \"import os; print('for', os.environ['DATABASE_URL'])\"\n"
    port = free_port()
    up = await start(
        release + line(folder, "gateway") + line(folder, "generation"),
        *("--scale", "generation=2"),
        PORT=str(port),
        OPENAI_API_KEY="sk-canary",
    )
    await up.until("Stop: Ctrl-C")
    listed = up.listed()
    assert list(listed) == ["nats", "postgres", "gateway", "generation", "generation.2"]
    assert (up.data / "run.json").stat().st_mode & 0o777 == 0o600
    assert listed["gateway"]["url"] == f"http://127.0.0.1:{port}"
    assert all([await answers_200(listed[name]["url"] + "/readyz") for name in list(listed)[2:]])
    assert (up.data / "logs" / "release.log").read_text() == f"for {listed['postgres']['url']}\n"
    async with await psycopg.AsyncConnection.connect(listed["postgres"]["url"]) as connection:
        await connection.execute("SELECT 1")
    begun = time.monotonic()
    assert await up.end(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 5
    assert not any(alive(entry["pid"]) for entry in listed.values())
    assert {path.name for path in up.data.iterdir()} == {
        *("logs", "nats", "nats.password", "ports.json", "postgres", "postgres.password"),
    }
    assert "sk-canary" not in up.words


async def test_after_a_kill_of_everything_it_starts_again_on_its_data(start: Start, folder: Path) -> None:
    gateway = line(folder, "gateway")
    up = await start(gateway, OPENAI_API_KEY="x")
    await up.until("Stop: Ctrl-C")
    url = up.listed()["postgres"]["url"]
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    first = up.listed()
    assert await up.end(signal.SIGKILL) == -signal.SIGKILL
    await until(lambda: not any(alive(entry["pid"]) for entry in first.values()))
    again = await start(gateway, OPENAI_API_KEY="x")
    await again.until("Stop: Ctrl-C")
    assert again.listed()["postgres"]["url"] == url
    async with await psycopg.AsyncConnection.connect(url) as connection:
        assert await (await connection.execute("SELECT number FROM kept")).fetchall() == [(1,)]
    assert await again.end(signal.SIGINT) == 0


async def test_a_second_one_on_the_same_folder_or_port_is_told_so_and_changes_nothing(
    start: Start,
    folder: Path,
) -> None:
    port = str(free_port())
    up = await start(line(folder, "gateway"), PORT=port, **WITHOUT_SERVERS)
    await up.until("Stop: Ctrl-C")
    second = await start(line(folder, "gateway"), **WITHOUT_SERVERS)
    assert await second.end() == 1
    assert f"another `make run` uses {up.data}" in second.words
    third = await start(line(folder, "gateway"), PORT=port, DATA_DIR=str(folder / "other"), **WITHOUT_SERVERS)
    assert await third.end() == 1
    assert f"port {port} is taken" in third.words
    assert alive(up.listed()["gateway"]["pid"])


async def test_two_with_their_own_folder_and_port_run_side_by_side(start: Start, folder: Path) -> None:
    ups = [
        await start(line(folder, "gateway"), DATA_DIR=str(folder / name), **WITHOUT_SERVERS) for name in ("one", "two")
    ]
    for up in ups:
        await up.until("Stop: Ctrl-C")
    assert ups[0].listed()["gateway"]["url"] != ups[1].listed()["gateway"]["url"]


async def test_a_failed_release_stops_the_start_with_its_output(start: Start, folder: Path) -> None:
    release = "release: python -c \"print('revision 7 failed'); raise SystemExit(3)\"\n"
    up = await start(release + line(folder, "gateway"), **WITHOUT_SERVERS)
    assert await up.end() == 1
    assert "release exited with code 3." in up.words
    assert "    revision 7 failed" in up.words
    assert marks_in(folder / "marks") == []


async def test_a_killed_process_is_replaced_and_the_list_says_so(start: Start, folder: Path) -> None:
    up = await start(line(folder, "gateway") + line(folder, "generation"), **WITHOUT_SERVERS)
    await up.until("Stop: Ctrl-C")
    before = up.listed()["generation"]
    os.kill(before["pid"], signal.SIGKILL)
    await up.until("generation was ended by SIGKILL, restarting in 0.2 s")
    await until(lambda: up.listed()["generation"]["pid"] != before["pid"])
    assert alive(up.listed()["generation"]["pid"])
    assert up.listed()["generation"]["url"] == before["url"]


async def test_a_second_ctrl_c_ends_what_would_take_its_time(start: Start, folder: Path) -> None:
    up = await start(line(folder, "gateway", "stubborn"), **WITHOUT_SERVERS)
    await up.until("Stop: Ctrl-C")
    pid = up.listed()["gateway"]["pid"]
    up.send(signal.SIGINT)
    await up.until("stopping")
    begun = time.monotonic()
    assert await up.end(signal.SIGINT) == 0
    assert time.monotonic() - begun < 3
    assert not alive(pid)


async def test_a_wrong_procfile_or_pool_is_named_before_anything_starts(start: Start, folder: Path) -> None:
    up = await start("gateway python", **WITHOUT_SERVERS)
    assert await up.end() == 1
    assert "Procfile line 1: expected `name: command`" in up.words
    up = await start(line(folder, "gateway"), COZY_POOLS="genration=2", **WITHOUT_SERVERS)
    assert await up.end() == 1
    assert "no process 'genration'" in up.words
    assert marks_in(folder / "marks") == []


async def test_two_gateways_share_the_port_and_one_is_restarted_while_the_other_serves(start: Start) -> None:
    port = free_port()
    others = {"DATABASE_URL": "postgresql://elsewhere", "OPENAI_BASE_URL": "http://x"}
    up = await start("gateway: python -m gateway\n", PORT=str(port), COZY_POOLS="gateway=2", **others)
    await up.until("Stop: Ctrl-C")
    first, second = up.listed()["gateway"], up.listed()["gateway.2"]
    assert first["url"] == second["url"] == f"http://127.0.0.1:{port}"
    assert first["health_url"] != second["health_url"]
    for listed in (first, second):
        os.kill(listed["pid"], signal.SIGTERM)
        answers = 0
        while up.listed()[listed["name"]]["pid"] == listed["pid"]:
            assert all(await asyncio.gather(*(answers_200(f"{listed['url']}/livez") for _ in range(20))))
            answers += 20
        assert answers
        await up.until(f"{listed['name']} started", times=2)
        while not await answers_200(f"{listed['health_url']}/readyz"):
            assert await answers_200(f"{listed['url']}/livez")
    assert await up.end(signal.SIGTERM) == 0


async def test_a_data_folder_of_another_user_is_named(start: Start, folder: Path) -> None:
    (folder / "data" / "logs").mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(folder / "data" / "logs", 65534, 65534)
        up = await start(line(folder, "gateway"), **WITHOUT_SERVERS)
        assert await up.end() == 1
        assert "is the data folder of user nobody, and you are root" in up.words
