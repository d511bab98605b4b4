"""Bring a database to the tables this version needs: at start, under a lock, in one transaction."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from taskwire.store.database import Database, is_transient
from taskwire.store.schema import metadata

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x7461736B77697265  # "taskwire"; PostgreSQL's advisory locks are numbers of 64 bits
_RETRY: Final = 0.05  # seconds between tries for the lock or the database

# Alembic tells of its plugins, when it is imported, and of every step at level INFO; our caller logs what was applied.
logging.getLogger("alembic").setLevel(logging.WARNING)


class MigrationError(Exception):
    """The database cannot be brought to the tables this version needs; the message says why and what to do."""


async def migrate(database: Database, *, timeout: float) -> list[str]:  # noqa: ASYNC109 - not for the work itself
    """Apply what is missing and return the revisions applied, oldest first (empty: nothing was missing).

    Any number of processes may do this at once: one works, the others wait for it and find nothing to do. A step
    that fails leaves the database as it was. Waits up to ``timeout`` seconds for a database that is away or locked,
    then raises MigrationError; so does a database that a newer version has migrated, or that holds tables of our
    names which we did not make.
    """
    async with _locked(database, wait=timeout) as connection:
        return await connection.run_sync(_upgrade)


async def pending(database: Database) -> list[str]:
    """The revisions that ``migrate`` would apply now, oldest first. Raises as ``migrate`` does, but never waits."""
    async with database.read() as connection:
        return await connection.run_sync(_missing)


@asynccontextmanager
async def _locked(database: Database, *, wait: float) -> AsyncIterator[AsyncConnection]:
    """A transaction that no other process can be in at the same time."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait
    reason = "no answer"
    async with AsyncExitStack() as stack:
        connection = None
        while connection is None:
            try:
                # SQLite's driver bounds the wait itself, and a thread that waits for a lock cannot be cancelled.
                async with asyncio.timeout_at(None if database.is_sqlite else deadline):
                    connection = await stack.enter_async_context(database.write())
            except Exception as error:
                if not is_transient(error):
                    raise MigrationError(f"The database cannot be opened: {_reason(error)}") from error
                reason = reason if isinstance(error, TimeoutError) else _reason(error)
                if clock() >= deadline:
                    raise MigrationError(
                        f"The database could not be reached, or was locked, for {wait:g} s: {reason}"
                    ) from error
                await asyncio.sleep(_RETRY)
        # On SQLite the write transaction (BEGIN IMMEDIATE) is lock enough.
        while not (database.is_sqlite or await _try_lock(connection)):
            if clock() >= deadline:
                raise MigrationError(
                    f"Another process has been migrating the database for more than {wait:g} s."
                )
            await asyncio.sleep(_RETRY)
        yield connection


async def _try_lock(connection: AsyncConnection) -> bool:
    # Held until the transaction ends, also when the process dies.
    return bool(await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}))


def _upgrade(connection: Connection) -> list[str]:
    missing = _missing(connection)
    if missing:
        from alembic import command  # imported where needed: only the process that migrates pays for it

        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return missing


def _missing(connection: Connection) -> list[str]:
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_config())
    known = [revision.revision for revision in script.walk_revisions()][::-1]
    applied = MigrationContext.configure(connection).get_current_heads()
    unknown = set(applied).difference(known)
    if unknown:
        raise MigrationError(
            f"The database is newer than this version of Taskwire: it is at revision {', '.join(sorted(unknown))}, "
            f"this version knows up to {known[-1]}. Start the newer version, or restore the backup made before it."
        )
    if not applied:
        taken = sorted(set(inspect(connection).get_table_names()).intersection(metadata.tables))
        if taken:
            raise MigrationError(
                f"The database already holds tables that Taskwire did not make: {', '.join(taken)}. "
                "Give Taskwire a database (or a PostgreSQL schema) of its own."
            )
        return known
    return known[known.index(applied[0]) + 1 :]


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))  # "%" begins an interpolation
    return config


def _reason(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(cause).__name__}: {cause}"
