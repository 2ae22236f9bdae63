"""The whole system on one machine: the embedded servers, the release step, then every process of the Procfile."""

import os
import sys
from collections.abc import Callable

from ops.local.child import Program, run_to_end
from ops.local.embedded_nats import EmbeddedNats
from ops.local.embedded_postgres import EmbeddedPostgres
from ops.local.http_process import HttpProcess
from ops.local.launch_settings import GATEWAY, PROJECT, REUSE_PORT, LaunchSettings
from ops.local.procfile import RELEASE, instances, parse_procfile
from ops.local.remembered import free_port
from ops.local.supervisor import StartFailed, Supervisor

READY_LIMIT = 60.0
RELEASE_LIMIT = 300.0

# Seconds after a stop began by which each has ended, by force if need be; all of it stays below 10 s. The gateways
# go first and have the longest, because people are reading from them, and whatever they read comes from the rest.
GATEWAYS_END, WORKERS_END, SCRIPTED_ENDS, POSTGRES_ENDS, NATS_ENDS = 8.0, 8.6, 8.7, 9.1, 9.3


class Stack:
    """Starts the system under a supervisor, in the order in which its parts need each other."""

    def __init__(self, settings: LaunchSettings, supervisor: Supervisor, say: Callable[[str], None]) -> None:
        """Raises ProcfileError, or OSError if the Procfile cannot be read."""
        self._commands = parse_procfile(settings.procfile.read_text(encoding="utf-8"))
        self._processes = instances(self._commands, settings.pools)
        self._settings = settings
        self._supervisor = supervisor
        self._say = say
        self._logs = settings.data_folder / "logs"

    async def start(self) -> None:
        """Start everything and wait until it is ready. Raises StartFailed; what was started then still runs."""
        env = await self._start_servers()
        await self._release(env)
        for name, command in self._processes.items():
            self._start_process(name, command, env)
        await self._supervisor.until_ready(READY_LIMIT)
        self._supervisor.started()

    async def _start_servers(self) -> dict[str, str]:
        """Start what no variable names; give the environment in which all finds its way."""
        settings = self._settings
        nats = None if settings.nats_url else EmbeddedNats(settings.data_folder)
        postgres = None if settings.database_url else EmbeddedPostgres(settings.data_folder)
        scripted = None if settings.has_model else self._scripted()
        for unit, ends_by in ((nats, NATS_ENDS), (postgres, POSTGRES_ENDS), (scripted, SCRIPTED_ENDS)):
            if unit:
                self._supervisor.keep(unit, ends_by)
        await self._supervisor.until_ready(READY_LIMIT)
        for note in postgres.home.notes if postgres else ():
            self._say(note)
        env = self._environment()
        env["NATS_URL"] = nats.url if nats else settings.nats_url
        env["DATABASE_URL"] = postgres.url if postgres else settings.database_url
        if scripted:
            env["SCRIPTED_URL"] = scripted.url
        return env

    async def _release(self, env: dict[str, str]) -> None:
        if RELEASE not in self._commands:
            return
        log = self._logs / "release.log"
        program = Program(name=RELEASE, argv=_argv(self._commands[RELEASE]), env=env, log=log, cwd=PROJECT)
        release = await run_to_end(program, RELEASE_LIMIT)
        if release.code != 0:
            raise StartFailed(f"release {release.describe_exit()}. {release.last_words()}")

    def _start_process(self, name: str, command: list[str], env: dict[str, str]) -> None:
        is_gateway = name.partition(".")[0] == GATEWAY
        shared = is_gateway and self._settings.share_port
        port = None
        if is_gateway:
            port = self._settings.port if shared or name == GATEWAY else free_port()
        unit = HttpProcess(
            name,
            _argv(command),
            env={**env, REUSE_PORT: "true"} if shared else env,
            log=self._logs / f"{name}.log",
            cwd=PROJECT,
            port=port,
            shared=shared,
        )
        self._supervisor.keep(unit, GATEWAYS_END if is_gateway else WORKERS_END)

    def _scripted(self) -> HttpProcess:
        port = free_port()
        return HttpProcess(
            "scripted",
            [sys.executable, "-m", "ops.local.scripted", "--port", str(port)],
            env=self._environment(),
            log=self._logs / "scripted.log",
            cwd=PROJECT,
            port=port,
            ready_path="/v1/models",
        )

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "APP_ENV": self._settings.app_env,
            "DATA_DIR": str(self._settings.data_folder),
            "PORT": str(self._settings.port),
            # A log line is on disk when its process is killed.
            "PYTHONUNBUFFERED": "1",
        }


def _argv(command: list[str]) -> list[str]:
    """`python` is the interpreter that runs us, with our dependencies, wherever PATH leads."""
    program = sys.executable if command[0] in ("python", "python3") else command[0]
    return [program, *command[1:]]
