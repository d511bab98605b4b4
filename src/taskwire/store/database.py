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
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from taskwire.core.errors import Unavailable

T = TypeVar("T")

_CONNECTION_ERRORS: Final = (OperationalError, InterfaceError, PoolTimeout, OSError)
_POSTGRES_STATES: Final = ("08", "25006", "40", "53", "55P03", "57", "58")
"""SQLSTATE or its class: connection, read-only (a failover), rollback, resources, lock, operator, system."""
_SQLITE_CODES: Final = frozenset({5, 6, 7, 8, 9, 10, 13, 14, 15})
"""Busy, locked, no memory, read-only, interrupted, I/O error, full, cannot open, locking protocol."""


def is_transient(error: BaseException) -> bool:
    """Whether trying the same transaction again may help (connection lost, database locked, disk full, restart).

    It does not where the fault is in what was to be stored, whichever class of exception the driver says that with.
    """
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    if (state := getattr(cause, "sqlstate", None)) is not None:
        return str(state).startswith(_POSTGRES_STATES)
    if (code := getattr(cause, "sqlite_errorcode", None)) is not None:
        return code & 0xFF in _SQLITE_CODES
    if isinstance(getattr(cause, "__cause__", None), ValueError):  # asyncpg, of a value that it cannot send
        return False
    return isinstance(error, _CONNECTION_ERRORS)


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """Raise Unavailable in place of what a database that is away raises."""
    try:
        yield
    except Exception as error:
        if not is_transient(error):
            raise
        raise Unavailable("The database cannot be reached right now.") from error


def _to_json(value: Any) -> str:
    """JSON that every reader of it takes: no NaN, no lone surrogates."""
    return orjson.dumps(value).decode()


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
        # SQLite has one writer at a time; waiting here is fair, its busy loop is not.
        self._turn = asyncio.Lock()
        arguments: dict[str, Any] = {"max_overflow": 0, "json_serializer": _to_json}
        self._kept: Connection | None = None
        if self.is_sqlite:
            arguments["connect_args"] = {"timeout": busy_timeout}
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
                pool_pre_ping=True,
                pool_timeout=busy_timeout,
                connect_args={"timeout": busy_timeout},
                **arguments,
            )
            self._reader = self._writer

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction, committed when it returns. Driver errors pass through (``is_transient``).

        ``work`` must not touch the event loop: on SQLite it runs in another thread.
        """
        if self.is_sqlite:

            def run() -> T:
                # One connection is kept for this: taking it from a pool would double the cost of a small commit.
                if self._kept is None:
                    self._kept = self._plain_writer.connect()
                try:
                    with self._kept.begin():
                        return work(self._kept)
                except BaseException:
                    kept, self._kept = self._kept, None
                    kept.close()
                    raise

            async with self._turn:
                return await asyncio.get_running_loop().run_in_executor(self._write_thread, run)
        async with self._writer.begin() as connection:
            return await connection.run_sync(work)

    async def query(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which only reads. Raises Unavailable when the database is away."""
        with _unavailable():
            if self.is_sqlite:

                def run() -> T:
                    with self._plain_reader.connect() as connection:
                        return work(connection)

                return await asyncio.get_running_loop().run_in_executor(self._read_threads, run)
            async with self._reader.connect() as connection:
                return await connection.run_sync(work)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading. Raises Unavailable when the database is away."""
        with _unavailable():
            async with self._reader.connect() as connection:
                yield connection

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
        with _unavailable():
            async with self.write() as connection:
                yield connection

    async def ping(self) -> None:
        """Raise Unavailable unless the database answers."""
        async with self.read() as connection:
            await connection.exec_driver_sql("SELECT 1")

    async def close(self) -> None:
        await self._writer.dispose()
        await self._reader.dispose()
        if self.is_sqlite:
            if self._kept is not None:
                self._write_thread.submit(self._kept.close)
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
