"""Migrations: complete, once only, safe with several at a time, and never backwards."""

import asyncio
import logging
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from taskwire.store import migrate as module
from taskwire.store.database import Database
from taskwire.store.migrate import MigrationError, migrate, pending
from taskwire.store.schema import metadata
from tests.support.accounts import DATABASES, database_url
from tests.support.processes import free_port
from tests.support.services import ROOT
from tests.support.timing import scaled

pytestmark = pytest.mark.anyio

ALL = ["0001"]


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return database_url(request.param, request, tmp_path)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = Database(url)
    yield opened
    await opened.close()


def differences(connection: Connection) -> object:
    """What Alembic would change to make the database as the schema says."""
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return compare_metadata(context, metadata)


def constraint_names(connection: Connection) -> dict[str, set[str | None]]:
    """The names of keys and constraints, which Alembic does not compare."""
    seen = inspect(connection)
    return {
        table: {
            seen.get_pk_constraint(table)["name"],
            *(found["name"] for found in seen.get_unique_constraints(table)),
            *(found["name"] for found in seen.get_foreign_keys(table)),
        }
        for table in metadata.tables
    }


async def test_a_fresh_database_gets_what_the_schema_says(database: Database) -> None:
    assert await pending(database) == ALL
    assert await migrate(database, timeout=30) == ALL
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
        found = await connection.run_sync(constraint_names)
    assert found == {
        name: {constraint.name for constraint in table.constraints} for name, table in metadata.tables.items()
    }


async def test_the_comparison_notices_a_difference(database: Database) -> None:
    await migrate(database, timeout=30)
    async with database.write() as connection:
        await connection.exec_driver_sql("DROP INDEX ix_tasks_finished")
    async with database.read() as connection:
        assert await connection.run_sync(differences) != []


async def test_a_second_time_there_is_nothing_to_do(database: Database) -> None:
    await migrate(database, timeout=30)
    assert await pending(database) == []
    assert await migrate(database, timeout=30) == []


def test_several_processes_at_once(url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from taskwire.store.database import Database\n"
        "from taskwire.store.migrate import migrate\n"
        "async def main():\n"
        "    database = Database(sys.argv[1])\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print(await migrate(database, timeout=60))\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        results = [process.communicate(timeout=scaled(60)) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [error for _, error in results] == ["", "", ""]
    assert sorted(output for output, _ in results) == [f"{ALL}\n", "[]\n", "[]\n"]


async def test_many_tasks_of_one_process_at_once(url: str) -> None:
    databases = [Database(url) for _ in range(4)]
    try:
        applied = await asyncio.gather(*(migrate(database, timeout=30) for database in databases))
    finally:
        for database in databases:
            await database.close()
    assert sorted(applied) == [[], [], [], ALL]


async def test_a_database_newer_than_the_code_is_refused(database: Database) -> None:
    await migrate(database, timeout=30)
    async with database.write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(MigrationError, match=r"newer than this version .* 9999, .* up to 0001"):
        await migrate(database, timeout=30)
    with pytest.raises(MigrationError, match="newer"):
        await pending(database)


async def test_tables_of_somebody_else_are_left_alone(database: Database) -> None:
    async with database.write() as connection:
        await connection.exec_driver_sql("CREATE TABLE users (id INTEGER PRIMARY KEY)")
    with pytest.raises(MigrationError, match="already holds tables that Taskwire did not make: users"):
        await migrate(database, timeout=30)


@pytest.fixture
def add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Adds a revision 0002 with the given source, in a copy of the migrations that is in use from now on."""
    folder = tmp_path / "100% migrations"
    shutil.copytree(module._FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "_FOLDER", folder)
    return (folder / "versions" / "0002_next.py").write_text


SECOND = """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.execute("CREATE TABLE second (id INTEGER PRIMARY KEY)")
"""


async def test_only_what_is_missing_is_applied(
    database: Database, add_revision: Callable[[str], object]
) -> None:
    await migrate(database, timeout=30)
    add_revision(SECOND)
    assert await pending(database) == ["0002"]
    assert await migrate(database, timeout=30) == ["0002"]


async def test_a_step_that_fails_leaves_nothing_behind(
    database: Database, add_revision: Callable[[str], object]
) -> None:
    add_revision(SECOND + "    raise RuntimeError('the power went out')\n")
    with pytest.raises(RuntimeError, match="power"):
        await migrate(database, timeout=30)
    async with database.read() as connection:
        assert await connection.run_sync(lambda seen: inspect(seen).get_table_names()) == []


async def test_who_waits_too_long_for_the_others_is_told(url: str) -> None:
    holder, waiting = Database(url), Database(url, busy_timeout=0.05)
    try:
        async with holder.write() as connection:
            if not holder.is_sqlite:
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({module._LOCK})")
            with pytest.raises(MigrationError, match=r"locked, for 0.2 s|more than 0.2 s"):
                await migrate(waiting, timeout=0.2)
        assert await migrate(waiting, timeout=30) == ALL
    finally:
        await holder.close()
        await waiting.close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (
            "postgresql+asyncpg://nobody@127.0.0.1:{port}/none",
            "could not be reached, or was locked, for 0.3 s: .+",
        ),
        ("sqlite+aiosqlite:///{folder}", "could not be reached, or was locked, for 0.3 s: .*unable to open"),
    ],
)
async def test_a_database_that_cannot_be_reached(tmp_path: Path, address: str, reason: str) -> None:
    database = Database(address.format(port=free_port(), folder=tmp_path))
    try:
        with pytest.raises(MigrationError, match=reason):
            await migrate(database, timeout=0.3)
    finally:
        await database.close()


async def test_a_wrong_name_is_not_waited_for(postgres_url: str) -> None:
    database = Database(postgres_url.replace("postgresql:", "postgresql+asyncpg:", 1) + "_missing")
    try:
        async with asyncio.timeout(scaled(30)):
            with pytest.raises(MigrationError, match=r"cannot be opened: .*does not exist"):
                await migrate(database, timeout=scaled(600))
    finally:
        await database.close()


async def test_it_says_nothing_in_the_log(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await migrate(database, timeout=30)
    assert [record for record in caplog.records if record.name.startswith("alembic")] == []
