"""Connections to the database: one way to read, one way to write, the same on SQLite and PostgreSQL.

SQLite runs in WAL mode. Writers take the write lock when they begin (``BEGIN IMMEDIATE``) and take turns, so that a
transaction never fails half-way for a lock; readers have connections of their own and are never blocked.

There are two ways in. ``read`` and ``change`` are for ordinary work. ``transact`` and ``query`` are for the update
path: they run one plain function over a synchronous connection. On SQLite that is one hop to a thread for the whole
transaction, where aiosqlite needs about ten, each waiting its turn on a busy event loop;
docs/decisions/0002-sqlite-threads.md has the numbers. On PostgreSQL the same function runs over asyncpg.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from taskwire.core.errors import Unavailable

T = TypeVar("T")

CONNECTION_ERRORS: Final = (OperationalError, InterfaceError, PoolTimeout, OSError)
"""What a database that is away, locked or full raises; the transaction may be tried again."""


def is_transient(error: BaseException) -> bool:
    """Whether trying the same transaction again may help (connection lost, database locked, disk full, restart)."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in (
        "40001",
        "40P01",
        "57P03",
        "53300",
    ):
        return True
    return isinstance(error, CONNECTION_ERRORS)


class Database:
    """The two engines over one database URL."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        synchronous: Literal["NORMAL", "FULL"] = "FULL",
        busy_timeout: float = 10,
    ) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database not in (None, "", ":memory:"):
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
        self._turn = (
            asyncio.Lock()
        )  # SQLite has one writer at a time; waiting here is fair, its busy loop is not
        if self.is_sqlite:
            arguments = {"connect_args": {"timeout": busy_timeout}, "max_overflow": 0}
            plain = self.url.set(drivername="sqlite")
            plain_arguments = {
                **arguments,
                "connect_args": {"timeout": busy_timeout, "check_same_thread": False},
            }
            self._writer = create_async_engine(self.url, pool_size=1, **arguments)
            self._reader = create_async_engine(self.url, pool_size=pool_size, **arguments)
            self._plain_writer = create_engine(plain, pool_size=1, **plain_arguments)
            self._plain_reader = create_engine(plain, pool_size=2, **plain_arguments)
            self._write_thread = ThreadPoolExecutor(1, "store-write")
            self._read_threads = ThreadPoolExecutor(2, "store-read")
            for engine in (self._writer.sync_engine, self._plain_writer):
                _configure_sqlite(engine, "BEGIN IMMEDIATE", synchronous)
            for engine in (self._reader.sync_engine, self._plain_reader):
                _configure_sqlite(engine, "BEGIN", synchronous)
        else:
            # One pool for both: PostgreSQL's readers and writers do not block each other. Two are kept for the writer.
            self._writer = create_async_engine(
                self.url,
                pool_size=pool_size + 2,
                max_overflow=0,
                pool_pre_ping=True,
                pool_timeout=busy_timeout,
            )
            self._reader = self._writer

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction, committed when it returns. Driver errors pass through (``is_transient``).

        ``work`` must not touch the event loop: on SQLite it runs in another thread.
        """
        if self.is_sqlite:

            def run() -> T:
                with self._plain_writer.begin() as connection:
                    return work(connection)

            async with self._turn:
                return await asyncio.get_running_loop().run_in_executor(self._write_thread, run)
        async with self._writer.begin() as connection:
            return await connection.run_sync(work)

    async def query(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which only reads. Raises Unavailable when the database is away."""
        try:
            if self.is_sqlite:

                def run() -> T:
                    with self._plain_reader.connect() as connection:
                        return work(connection)

                return await asyncio.get_running_loop().run_in_executor(self._read_threads, run)
            async with self._reader.connect() as connection:
                return await connection.run_sync(work)
        except CONNECTION_ERRORS as error:
            raise Unavailable("The database cannot be reached right now.") from error

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading. Raises Unavailable when the database is away."""
        try:
            async with self._reader.connect() as connection:
                yield connection
        except CONNECTION_ERRORS as error:
            raise Unavailable("The database cannot be reached right now.") from error

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back on an exception. Driver errors pass through."""
        async with (
            self._turn if self.is_sqlite else contextlib.nullcontext(),
            self._writer.begin() as connection,
        ):
            yield connection

    @asynccontextmanager
    async def change(self) -> AsyncIterator[AsyncConnection]:
        """``write`` for callers that answer people: a database that is away raises Unavailable."""
        try:
            async with self.write() as connection:
                yield connection
        except CONNECTION_ERRORS as error:
            raise Unavailable("The database cannot be reached right now.") from error

    async def ping(self) -> None:
        """Raise Unavailable unless the database answers."""
        async with self.read() as connection:
            await connection.exec_driver_sql("SELECT 1")

    async def close(self) -> None:
        await self._writer.dispose()
        await self._reader.dispose()
        if self.is_sqlite:
            self._write_thread.shutdown()
            self._read_threads.shutdown()
            self._plain_writer.dispose()
            self._plain_reader.dispose()


def _configure_sqlite(engine: Engine, begin: str, synchronous: str) -> None:
    """Set the pragmas on each new connection, and begin transactions where we say and not where the driver guesses."""

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON", "temp_store=MEMORY",
            "cache_size=-65536", "mmap_size=268435456", "wal_autocheckpoint=4000",
        ):  # fmt: skip
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Any) -> None:
        connection.exec_driver_sql(begin)
