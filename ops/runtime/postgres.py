"""Connections to PostgreSQL: one pool a process, opened the same way everywhere."""

from __future__ import annotations

import select
from typing import Any

import msgspec
from psycopg import AsyncConnection
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg.types.string import TextLoader
from psycopg_pool import AsyncConnectionPool

CONNECT_SECONDS = 3
IDLE_SECONDS = 1.0
"""A process that freezes in a transaction is thrown out of it after so long: others wait for its locks, and
what it was to do in time must not be done late."""
RECONNECT_SECONDS = 2.0
"""How long one round of attempts lasts. The pool doubles its pauses within a round and starts small in the next, so a
long round would heal about as late as the outage was long."""

set_json_loads(msgspec.json.decode)
set_json_dumps(msgspec.json.encode)


# The queries are few, named, prepared on each connection, and written so that one plan fits all their parameters:
# planning anew took five times as long as running most of them.


async def _configure(connection: AsyncConnection[Any]) -> None:
    # Ids are text everywhere in the house; a UUID object per row would be made only to be formatted again.
    connection.adapters.register_loader("uuid", TextLoader)
    connection.prepare_threshold = 2


def _has_something_to_say(connection: AsyncConnection[Any]) -> bool:
    """Whether the server spoke on a connection that asked nothing: most likely that it is over. No round trip."""
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    return bool(look.poll(0))


async def open_pool(
    url: str, *, size: int, name: str, statement_timeout: float, wait: float = 3.0
) -> AsyncConnectionPool[AsyncConnection[Any]]:
    """A pool of at most `size` autocommit connections; times in seconds.

    It opens without waiting for the server: a database that is away is a pause, not a failed start. Asking for a
    connection raises `psycopg_pool.PoolTimeout` (a `psycopg.OperationalError`) after `wait` seconds.
    """

    async def check(connection: AsyncConnection[Any]) -> None:
        # Before it is handed out. After a restart of the server every idle connection is dead: each would fail one
        # statement, one after the other, long after the server is back. So the first that is found dead clears all out.
        if _has_something_to_say(connection):
            await pool.check()
            await AsyncConnectionPool.check_connection(connection)

    pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
        url,
        min_size=1,
        max_size=size,
        open=False,
        timeout=wait,
        reconnect_timeout=RECONNECT_SECONDS,
        name=name,
        configure=_configure,
        check=check,
        kwargs={
            "autocommit": True,
            "connect_timeout": CONNECT_SECONDS,
            "application_name": f"cozy-{name}",
            "options": f"-c statement_timeout={int(statement_timeout * 1000)} -c plan_cache_mode=force_generic_plan "
            f"-c idle_in_transaction_session_timeout={int(IDLE_SECONDS * 1000)}",
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        },
    )
    await pool.open(wait=False)
    return pool
