"""ops/local/child.py and the guard it starts programs under."""

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from ops.local import child as module
from ops.local.child import Child, Program, last_words, run_to_end, spawn
from tests.ops.local.watching import alive, until

SAY_AND_WAIT = "import signal, sys; print('here', flush=True); signal.pause()"
POLITE = "import signal; signal.signal(15, lambda *_: exit(5)); print('here', flush=True); signal.pause()"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SAY_AND_WAIT!r}])
print(child.pid, flush=True)
child.wait()
"""
DEAF = "import signal; signal.signal(15, signal.SIG_IGN); print('here', flush=True)\nwhile True: signal.pause()"

STARTER = """
import asyncio, os, signal, sys
from pathlib import Path
from ops.local.child import Program, spawn
async def main():
    folder = Path(sys.argv[1])
    argv = [sys.executable, "-c", sys.argv[2]]
    child = await spawn(Program(name="x", argv=argv, env=os.environ, log=folder / "x.log", cwd=folder))
    while "here" not in (folder / "x.log").read_text(): await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""


def program(folder: Path, code: str, **env: str) -> Program:
    return Program(
        name="x", argv=[sys.executable, "-c", code], env={**os.environ, **env}, log=folder / "x.log", cwd=folder
    )


async def said_here(folder: Path) -> None:
    await until(lambda: "here" in (folder / "x.log").read_text())


async def test_its_words_go_to_a_private_log_that_is_added_to(tmp_path: Path) -> None:
    for word in ("one", "two"):
        code = "import os, sys; print(os.environ['WORD']); print('oh', file=sys.stderr)"
        await run_to_end(program(tmp_path, code, WORD=word), 10)
    assert sorted((tmp_path / "x.log").read_text().split()) == ["oh", "oh", "one", "two"]
    assert (tmp_path / "x.log").stat().st_mode & 0o777 == 0o600


async def test_its_last_words_are_only_those_since_it_was_started(tmp_path: Path) -> None:
    await run_to_end(program(tmp_path, "print('before')"), 10)
    child = await run_to_end(program(tmp_path, "print('after'); raise SystemExit(3)"), 10)
    assert child.last_words() == f"The end of {tmp_path / 'x.log'}:\n    after"
    assert child.describe_exit() == "exited with code 3"


async def test_a_log_that_has_grown_too_long_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_LIMIT", 3)
    for word in ("first", "second"):
        await run_to_end(program(tmp_path, f"print('{word}')"), 10)
    assert ((tmp_path / "x.log.1").read_text(), (tmp_path / "x.log").read_text()) == ("first\n", "second\n")


def test_a_log_without_an_end_is_shown_by_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("".join(f"{number}\n" for number in range(100_000)))
    assert last_words(tmp_path / "x.log").split()[-20:] == [str(number) for number in range(99_980, 100_000)]


async def test_what_cannot_be_run_ends_with_127_and_says_why(tmp_path: Path) -> None:
    wrong = Program(name="x", argv=["no-such-program"], env=os.environ, log=tmp_path / "x.log", cwd=tmp_path)
    child = await run_to_end(wrong, 10)
    assert child.code == 127
    assert "no-such-program: No such file or directory" in child.last_words()


async def test_an_end_by_a_signal_without_a_name_is_told_by_its_number(tmp_path: Path) -> None:
    child = await run_to_end(program(tmp_path, "import os; os.kill(os.getpid(), 40)"), 10)
    assert child.describe_exit() == "was ended by signal 40"


async def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    child = await run_to_end(program(tmp_path, SAY_AND_WAIT), 0.2)
    assert child.describe_exit() == "was ended by SIGKILL"


async def test_a_stop_is_asked_for_first(tmp_path: Path) -> None:
    child = await spawn(program(tmp_path, SAY_AND_WAIT))
    await said_here(tmp_path)
    await child.stop(signal.SIGTERM, 5)
    assert child.describe_exit() == "was ended by SIGTERM"


async def test_one_that_does_not_listen_is_killed_when_its_time_is_up(tmp_path: Path) -> None:
    child = await spawn(program(tmp_path, DEAF))
    await said_here(tmp_path)
    begun = time.monotonic()
    await child.stop(signal.SIGTERM, 0.3)
    assert child.describe_exit() == "was ended by SIGKILL"
    assert 0.3 <= time.monotonic() - begun < 1.3


async def test_one_that_is_frozen_can_still_end_by_itself(tmp_path: Path) -> None:
    child = await spawn(program(tmp_path, POLITE))
    await said_here(tmp_path)
    os.kill(child.pid, signal.SIGSTOP)
    await child.stop(signal.SIGTERM, 5)
    assert child.describe_exit() == "exited with code 5"


async def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    child = await spawn(program(tmp_path, PARENT))
    await said_here(tmp_path)
    grandchild = int((tmp_path / "x.log").read_text().split()[0])
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    await until(lambda: not alive(grandchild))


async def test_a_ctrl_c_at_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    child = await spawn(program(tmp_path, SAY_AND_WAIT))
    assert os.getpgid(child.pid) == child.pid != os.getpgrp()
    await child.stop(signal.SIGKILL, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels cannot tie a process to its parent's life")
async def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path), DEAF]
    starter = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    assert alive(pid)
    starter.kill()
    await starter.wait()
    await until(lambda: not alive(pid))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_it_becomes_the_user_it_is_to_run_as_and_is_still_tied_to_us(tmp_path: Path) -> None:
    sleep = shutil.which("sleep") or ""
    other = Program(
        name="x", argv=[sleep, "60"], env=os.environ, log=tmp_path / "x.log", cwd=Path("/"), user=(65534, 65534)
    )
    child: Child = await spawn(other)
    process = psutil.Process(child.pid)
    await until(lambda: process.name() == "sleep")
    assert (process.uids().real, process.uids().saved, process.gids().real) == (65534, 65534, 65534)
    await child.stop(signal.SIGTERM, 1)
