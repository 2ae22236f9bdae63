"""The door to PostgreSQL: run a named query, get structs back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from psycopg import AsyncConnection, AsyncCursor, errors
from psycopg_pool import AsyncConnectionPool

from ops.runtime import postgres

AWAY = (
    errors.OperationalError,
    errors.InterfaceError,
    errors.IdleInTransactionSessionTimeout,  # this process stood still
    errors.ReadOnlySqlTransaction,  # a primary that is none any more
)
"""The server is away, busy or another one now, and waiting helps; it is no fault of what was asked."""

T = TypeVar("T")
Params = Mapping[str, Any]


def _rows_of(kind: Callable[..., T]) -> Callable[[AsyncCursor[Any]], Callable[[Sequence[Any]], T]]:
    def factory(cursor: AsyncCursor[Any]) -> Callable[[Sequence[Any]], T]:
        names = [column.name for column in cursor.description or ()]
        return lambda values: kind(**dict(zip(names, values, strict=True)))

    return factory


class Connection:
    """One connection, held: what happens on it between `transaction()` and its end happens together or not at all."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def one(self, query: str, params: Params, kind: Callable[..., T]) -> T | None:
        """The first row as `kind(**columns)`, or None."""
        async with self._connection.cursor(row_factory=_rows_of(kind)) as cursor:
            await cursor.execute(query.encode(), params)
            return await cursor.fetchone()

    async def all(self, query: str, params: Params, kind: Callable[..., T]) -> list[T]:
        """Every row as `kind(**columns)`."""
        async with self._connection.cursor(row_factory=_rows_of(kind)) as cursor:
            await cursor.execute(query.encode(), params)
            return await cursor.fetchall()

    async def run(self, query: str, params: Params) -> int:
        """How many rows it changed."""
        async with self._connection.cursor() as cursor:
            await cursor.execute(query.encode(), params)
            return cursor.rowcount


class Database:
    """A pool of connections. Each query outside a transaction is one of its own.

    Raises psycopg errors: with one of `AWAY` waiting helps.
    """

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], url: str) -> None:
        self.pool, self._url = pool, url

    @classmethod
    async def open(
        cls, url: str, *, size: int, name: str, statement_timeout: float = 5.0, wait: float = 3.0
    ) -> Database:
        """Open without waiting for the server. Asking for a connection takes `wait` seconds at most."""
        pool = await postgres.open_pool(url, size=size, name=name, statement_timeout=statement_timeout, wait=wait)
        return cls(pool, url)

    async def beside(self, *, size: int, name: str, wait: float) -> Database:
        """Another pool to the same server, where asking for a connection and a statement take `wait` s at most."""
        return await Database.open(self._url, size=size, name=name, statement_timeout=wait, wait=wait)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Connection]:
        """One connection for several queries, each committed by itself."""
        async with self.pool.connection() as connection:
            try:
                yield Connection(connection)
            except errors.InFailedSqlTransaction:  # pragma: no cover - a bug of ours, not a state to live with
                await connection.close()
                raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One connection in one transaction: committed at the end, undone by any exception."""
        async with self.pool.connection() as connection, connection.transaction():
            yield Connection(connection)

    async def one(self, query: str, params: Params, kind: Callable[..., T]) -> T | None:
        """The first row as `kind(**columns)`, or None."""
        async with self.held() as connection:
            return await connection.one(query, params, kind)

    async def all(self, query: str, params: Params, kind: Callable[..., T]) -> list[T]:
        """Every row as `kind(**columns)`."""
        async with self.held() as connection:
            return await connection.all(query, params, kind)

    async def run(self, query: str, params: Params) -> int:
        """How many rows it changed."""
        async with self.held() as connection:
            return await connection.run(query, params)

    async def ping(self) -> None:
        """Come back when the server has answered; raise when it does not."""
        await self.run("SELECT 1", {})

    async def close(self) -> None:
        """Close every connection."""
        await self.pool.close(timeout=2)
