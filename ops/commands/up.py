"""Start and supervise the whole system on this machine (what `make run` does), until Ctrl-C or SIGTERM."""

import argparse
import asyncio
import os
import resource
import signal
import sys
import time
from pathlib import Path

import msgspec

from ops.local.files import PASSABLE_FOLDER, FileLock, InUse, NotOurs, make_folder, refuse_another_users
from ops.local.launch_settings import PROJECT, LaunchSettings, SettingError, read_settings
from ops.local.procfile import ProcfileError
from ops.local.remembered import is_free
from ops.local.run_file import RunFile, end_leftovers
from ops.local.stack import Stack
from ops.local.supervisor import StartFailed, Supervisor
from ops.local.welcome import welcome

OPEN_FILES = 65536


def main(argv: list[str]) -> int:
    """0 after a stop that was asked for, 1 if the start failed."""
    parser = argparse.ArgumentParser(prog="python -m ops up", description=__doc__)
    parser.add_argument("--scale", default="", metavar="NAME=N,...", help="how many of a process to run")
    parser.add_argument("--procfile", type=Path, default=PROJECT / "Procfile", help="another Procfile")
    arguments = parser.parse_args(argv)
    try:
        settings = read_settings(os.environ, arguments.scale, arguments.procfile.absolute())
        return asyncio.run(_up_alone(settings))
    except (SettingError, ProcfileError, StartFailed, NotOurs, OSError) as error:
        say(f"not started: {error}")
        return 1


def say(text: str) -> None:
    """Tell the person at the terminal; if the terminal is gone, there is nobody to tell."""
    try:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
    except OSError:
        # What was not written would be tried again at exit, and fail again.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


async def _up_alone(settings: LaunchSettings) -> int:
    """Run as the only one on this data folder and port."""
    make_folder(settings.data_folder, PASSABLE_FOLDER)
    refuse_another_users(settings.data_folder)
    try:
        lock = FileLock(settings.data_folder / "up.lock")
    except InUse:
        raise StartFailed(f"another `make run` uses {settings.data_folder}: give this one its own DATA_DIR") from None
    try:
        _clear_the_way(settings)
        return await _up(settings)
    finally:
        lock.release()


def _clear_the_way(settings: LaunchSettings) -> None:
    """End what a killed run left behind, then see that the port is free."""
    try:
        for name in end_leftovers(settings.data_folder / "run.json"):
            say(f"{name} of an earlier run was still there, and was ended")
    except msgspec.DecodeError as error:
        say(f"run.json of an earlier run cannot be read: {error}")
    if not is_free(settings.port):
        raise StartFailed(f"port {settings.port} is taken: choose another with PORT")


async def _up(settings: LaunchSettings) -> int:
    run_file = RunFile(settings.data_folder / "run.json")
    supervisor = Supervisor(run_file, say)
    stack = Stack(settings, supervisor, say)
    asked = asyncio.Event()
    _listen_for_signals(asked, supervisor)
    _allow_many_connections()
    try:
        await _start_unless(asked, stack, settings)
        await asked.wait()
        say("stopping; once more ends everything at once")
    finally:
        await supervisor.stop()
        run_file.remove()
    say("stopped")
    return 0


async def _start_unless(asked: asyncio.Event, stack: Stack, settings: LaunchSettings) -> None:
    """Start the system, or give up on it as soon as a stop is asked for."""
    starting = asyncio.create_task(stack.start())
    asking = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({starting, asking}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            say("ready\n\n" + welcome(settings))
    finally:
        for task in (starting, asking):
            task.cancel()
        await asyncio.gather(starting, asking, return_exceptions=True)


def _listen_for_signals(asked: asyncio.Event, supervisor: Supervisor) -> None:
    """The first signal asks for a stop, each further one ends everything at once."""
    loop = asyncio.get_running_loop()

    def hear() -> None:
        if asked.is_set():
            supervisor.kill()
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A run under nohup is meant to outlive its terminal.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, hear)


def _allow_many_connections() -> None:
    """Raise the limit on open files for all we start: each open stream needs one, and 1024 is the usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
