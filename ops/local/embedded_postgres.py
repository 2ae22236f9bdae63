"""The PostgreSQL 18 that `make run` brings along: on a local port, its data in the data folder."""

import asyncio
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from ops.local.child import Child, Program, plain_environment, run_to_end, spawn
from ops.local.embedded import ServerFailed, until_started
from ops.local.files import PASSABLE_FOLDER, FileLock, InUse, make_folder, write_private
from ops.local.postgres_home import SHELTER, PostgresHome, find_home
from ops.local.readiness import PATIENCE
from ops.local.remembered import remembered_password, remembered_port

USER = DATABASE = "cozy"
ADMIN_DATABASE = "postgres"
STOP_GRACE = 5.0
INITDB_LIMIT = 120.0
ORPHAN_WAIT, ORPHAN_PAUSE = 5.0, 0.02

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Nobody replicates from a server on 127.0.0.1.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    # What goes wrong in a statement is told to whoever sent it. In the log it could quote what a person wrote.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
WITHOUT_FSYNC = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """A PostgreSQL server for the data folder `folder`, for this machine's processes that know its password.

    Started again on the same folder it has the same address (unless the port is taken) and its data, however it
    ended. It dies with the process that started it. As root it runs as an ordinary user, and `notes` say where the
    data are if that user cannot reach `folder`. `fsync=False` is for tests: data survive a crash of the
    server, but not of the machine.
    """

    name = "postgres"
    health_url = ""  # it speaks no HTTP

    def __init__(self, folder: Path, *, fsync: bool = True, shelter: Path = SHELTER) -> None:
        self._folder = folder.absolute()
        self._fsync = fsync
        self._shelter = shelter
        self.log = self._folder / "logs" / "postgres.log"
        self.url = ""
        self._password_file = self._folder / "postgres.password"
        self._child: Child | None = None
        self._home: PostgresHome | None = None
        self._lock: FileLock | None = None

    @property
    def pid(self) -> int:
        """The postmaster's process id. Raises ServerFailed if it was never started."""
        if self._child is None:
            raise ServerFailed("postgres was not started")
        return self._child.pid

    @property
    def home(self) -> PostgresHome:
        """Where it lives. Known once it was launched; raises ServerFailed before."""
        if self._home is None:
            raise ServerFailed("postgres was not started")
        return self._home

    async def start(self) -> str:
        """Start it (making its data the first time), wait until it answers, give the URL of database `cozy`.

        Raises ServerFailed with the end of its log.
        """
        return await until_started(self)

    async def launch(self) -> Child:
        """Start its process, without waiting until it answers. The address stays the same for this object.

        What an earlier server left behind is cleared away: its pid file, and backends that outlived it.
        """
        make_folder(self._folder, PASSABLE_FOLDER)
        self._home = home = await asyncio.to_thread(find_home, self._folder, self._shelter)
        self._take_lock(home)
        if not (home.data / "PG_VERSION").exists():
            await self._make_cluster(home)
        elif not self._password_file.exists():
            raise ServerFailed(f"{self._password_file} is missing, and with it the way into {home.data}")
        await asyncio.to_thread(end_servers_on, home.data)
        (home.data / "postmaster.pid").unlink(missing_ok=True)
        self.url = self.url or self._url_of(DATABASE, remembered_port(self._folder, self.name))
        self._child = await spawn(self._program(home, ["postgres", "-D", str(home.data), *self._options()]))
        return self._child

    async def is_ready(self) -> bool:
        """Whether it answers a query. Makes the database `cozy` if it is not there yet."""
        try:
            async with await self._admin() as connection:
                row = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
                known = await row.fetchone() is not None
            if not known:
                await self.create_database(DATABASE)
        except psycopg.OperationalError:
            return False
        return True

    async def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, as a copy of `template` if given (which nobody may be connected to); give its URL."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        async with await self._admin() as connection:
            await connection.execute(statement)
        return self._url_of(name, self._port())

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """End it: connections are closed and data written, within `grace` seconds, or else as a crash would."""
        if self._child:
            await self._child.stop(signal.SIGINT, grace)
        await self._clear()

    async def kill(self) -> None:
        """End it as a crash would, backends included."""
        if self._child:
            self._child.kill()
            await self._child.wait()
        await self._clear()

    async def _clear(self) -> None:
        # Only under the lock: without it they may be another's.
        if self._lock:
            await asyncio.to_thread(end_servers_on, self.home.data)
            self._lock.release()
            self._lock = None

    def _take_lock(self, home: PostgresHome) -> None:
        if self._lock is None:
            try:
                self._lock = FileLock(home.data.with_name("postgres.lock"))
            except InUse:
                raise ServerFailed(f"the database in {home.data} is in use by another process") from None

    async def _make_cluster(self, home: PostgresHome) -> None:
        """Make the data in a folder aside and move it into place whole, so that a crash leaves nothing half made."""
        unfinished = home.data.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = home.data.with_name("initdb.password")
        write_private(password_file, self._password())
        try:
            if home.account:
                for path in (unfinished, password_file):
                    os.chown(path, home.account.uid, home.account.gid)
            # A few systems have no C.UTF-8. Then only text search knows fewer kinds of characters.
            for locale in ("C.UTF-8", "C"):
                initdb = await self._initdb(home, unfinished, password_file, locale)
                if initdb.code == 0:
                    break
            else:
                raise ServerFailed(f"initdb {initdb.describe_exit()}. {initdb.last_words()}")
            unfinished.replace(home.data)
        finally:
            password_file.unlink()
            shutil.rmtree(unfinished, ignore_errors=True)

    async def _initdb(self, home: PostgresHome, data: Path, password_file: Path, locale: str) -> Child:
        arguments = [
            *("initdb", "-D", str(data), "-U", USER, "--auth=scram-sha-256", f"--pwfile={password_file}"),
            # The built-in provider, because it sorts and folds case the same on every system.
            *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", f"--locale={locale}"),
            *("--no-instructions", *([] if self._fsync else ["--no-sync"])),
        ]
        return await run_to_end(self._program(home, arguments), INITDB_LIMIT)

    def _program(self, home: PostgresHome, argv: list[str]) -> Program:
        return Program(
            name=self.name,
            argv=[str(home.programs / argv[0]), *argv[1:]],
            env=plain_environment(),
            log=self.log,
            cwd=Path("/"),  # ours may be closed to its user
            user=(home.account.uid, home.account.gid) if home.account else None,
            # Ends its backends too, and at once; SIGKILL would leave them running their statements.
            last_signal=signal.SIGQUIT,
        )

    def _options(self) -> list[str]:
        settings = SETTINGS if self._fsync else {**SETTINGS, **WITHOUT_FSYNC}
        return [f"--{name}={value}" for name, value in {**settings, "port": str(self._port())}.items()]

    def _password(self) -> str:
        return remembered_password(self._password_file)

    def _port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def _url_of(self, database: str, port: int) -> str:
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{port}/{quote(database, safe='')}"

    async def _admin(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        url = self._url_of(ADMIN_DATABASE, self._port())
        return await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=int(PATIENCE))


def end_servers_on(data: Path) -> None:
    """Kill every server process whose data are in `data`, and wait until they are gone.

    A backend can outlive its postmaster for as long as its statement takes, and until then PostgreSQL will not start
    on these data. Nobody can reach such a backend any more.
    """
    deadline = time.monotonic() + ORPHAN_WAIT
    # Looking again, rather than waiting for each: one that is dead but not yet reaped, by an init that takes its time,
    # is no longer in the way.
    while (servers := _servers_on(data)) and time.monotonic() < deadline:
        for process in servers:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(ORPHAN_PAUSE)


def _servers_on(data: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["name"]) if _works_on(process, data)]


def _works_on(process: psutil.Process, data: Path) -> bool:
    try:
        # Each of PostgreSQL's processes works in its data folder.
        return "postgres" in process.info["name"] and process.cwd() == str(data)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
