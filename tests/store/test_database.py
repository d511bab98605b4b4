"""Connections: one way to read and one to write, and what counts as a database that is away."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from taskwire.core.errors import Unavailable
from taskwire.store.database import Database, is_transient
from tests.support.processes import free_port
from tests.support.store import Backend

pytestmark = pytest.mark.anyio

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KEYS = "SELECT count(*) FROM idempotency_keys"
INSERT = "INSERT INTO idempotency_keys (scope, key, fingerprint, entity_id, created_at) VALUES ('s', :key, 'f', 'e', 1)"


@pytest.fixture
async def database(backend: Backend) -> AsyncIterator[Database]:
    opened = Database(backend.url, busy_timeout=0.2)
    yield opened
    await opened.close()


def insert(key: str) -> Any:
    def work(connection: Connection) -> str:
        connection.execute(text(INSERT), {"key": key})
        return key

    return work


def count(connection: Connection) -> int:
    return int(connection.execute(text(KEYS)).scalar_one())


async def test_a_transaction_holds_when_its_work_returns(database: Database, backend: Backend) -> None:
    assert await database.transact(insert("a")) == "a"
    assert backend.ask(KEYS) == "1"
    assert await database.query(count) == 1


async def test_a_transaction_whose_work_fails_leaves_nothing(database: Database) -> None:
    def fail(connection: Connection) -> None:
        insert("a")(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.transact(fail)
    assert await database.query(count) == 0
    await database.transact(insert("a"))
    with pytest.raises(IntegrityError):
        await database.transact(insert("a"))
    await database.transact(insert("b"))
    assert await database.query(count) == 2


async def test_change_commits_at_the_end_of_the_block_and_not_on_an_exception(database: Database) -> None:
    async with database.change() as connection:
        await connection.execute(text(INSERT), {"key": "a"})

    async def fail() -> None:
        async with database.change() as connection:
            await connection.execute(text(INSERT), {"key": "b"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as connection:
        assert (await connection.execute(text(KEYS))).scalar_one() == 1


async def test_both_ways_to_write_take_turns(database: Database) -> None:
    async def change(key: str) -> None:
        async with database.change() as connection:
            await connection.execute(text(INSERT), {"key": key})

    await asyncio.gather(
        *(change(f"a{number}") for number in range(10)),
        *(database.transact(insert(f"b{number}")) for number in range(10)),
    )
    assert await database.query(count) == 20


async def test_many_readers_at_once(database: Database) -> None:
    assert await asyncio.gather(*(database.query(count) for _ in range(40))) == [0] * 40
    await database.ping()


@on_sqlite
async def test_readers_are_not_blocked_by_a_writer(database: Database, backend: Backend) -> None:
    connection = sqlite3.connect(backend.url.partition("///")[2], isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM idempotency_keys")
    assert await database.query(count) == 0
    await database.ping()
    with pytest.raises(Unavailable):
        async with database.change() as changing:
            await changing.execute(text(INSERT), {"key": "a"})
    with pytest.raises(OperationalError):
        await database.transact(insert("a"))
    connection.execute("ROLLBACK")
    connection.close()
    await database.transact(insert("a"))


@on_sqlite
async def test_sqlite_is_set_up_to_survive_crashes(database: Database) -> None:
    async with database.read() as connection:
        found = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_the_folder_of_a_new_database_is_made(tmp_path: Path) -> None:
    Database(f"sqlite+aiosqlite:///{tmp_path / 'deep' / 'down' / 'taskwire.db'}")
    assert (tmp_path / "deep" / "down").is_dir()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = Database(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/none", busy_timeout=2)
    with pytest.raises(Unavailable):
        await database.ping()
    with pytest.raises(Unavailable):
        await database.query(count)
    with pytest.raises(OSError, match=r"."):
        await database.transact(count)
    await database.close()


async def test_a_mistake_in_a_query_is_not_taken_for_a_database_that_is_away(database: Database) -> None:
    def mistaken(connection: Connection) -> None:
        connection.execute(text("SELECT nothing FROM nowhere"))

    with pytest.raises(DBAPIError) as error:
        await database.query(mistaken)
    assert not is_transient(error.value)


class Driver(Exception):
    """What a driver raises, with what it says of the reason."""

    def __init__(self, *, cause: Exception | None = None, **said: Any) -> None:
        super().__init__("said the driver")
        self.__cause__ = cause
        self.__dict__.update(said)


def dbapi(kind: type[DBAPIError], *, invalidated: bool = False, **said: Any) -> DBAPIError:
    return kind("SELECT 1", None, Driver(**said), connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (dbapi(OperationalError), True),
        (dbapi(InterfaceError), True),
        (dbapi(DBAPIError), False),
        (dbapi(DBAPIError, invalidated=True), True),
        (dbapi(DBAPIError, sqlstate="40001"), True),  # serialization failure
        (dbapi(DBAPIError, sqlstate="40P01"), True),  # deadlock
        (dbapi(DBAPIError, sqlstate="57P01"), True),  # the administrator stopped it
        (dbapi(DBAPIError, sqlstate="57P03"), True),  # it is starting
        (dbapi(DBAPIError, sqlstate="53100"), True),  # disk full
        (dbapi(DBAPIError, sqlstate="53300"), True),  # too many connections
        (dbapi(DBAPIError, sqlstate="08006"), True),
        (dbapi(DBAPIError, sqlstate="25006"), True),  # a standby after a failover
        (dbapi(DBAPIError, sqlstate="22P05"), False),  # NUL
        (dbapi(IntegrityError, sqlstate="23505"), False),
        (dbapi(OperationalError, sqlstate="42P01"), False),  # no such table
        (dbapi(OperationalError, sqlite_errorcode=1), False),  # malformed JSON, no such table
        (dbapi(OperationalError, sqlite_errorcode=5), True),  # busy
        (dbapi(OperationalError, sqlite_errorcode=261), True),  # busy, recovering
        (dbapi(OperationalError, sqlite_errorcode=13), True),  # full
        (dbapi(OperationalError, sqlite_errorcode=10 | 3 << 8), True),  # I/O
        (dbapi(IntegrityError, sqlite_errorcode=19), False),
        (dbapi(InterfaceError, cause=ValueError("out of range")), False),
        (PoolTimeout(), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (Driver(sqlstate="57P03"), True),
        (OverflowError(), False),
        (TypeError(), False),
    ],
)
def test_what_may_be_tried_again(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient
