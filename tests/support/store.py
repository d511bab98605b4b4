"""Stores for tests: migrated once, then copied or emptied, so that a test gets its own in milliseconds."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from taskwire.core.events import Event
from taskwire.core.tasks import Report, Task, apply_report, new_task
from taskwire.store.database import Database
from taskwire.store.entities import Command, Guard
from taskwire.store.migrate import migrate
from taskwire.store.tasks import TaskReader, TaskTable
from taskwire.store.writer import Writer
from tests.support.services import Postgres
from tests.support.tasks import NOW, make_spec

BACKENDS: Final = ("sqlite", "postgresql")


async def _migrate(url: str) -> None:
    database = Database(url)
    await migrate(database, timeout=30)
    await database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "taskwire.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{path}"))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # all of it in the one file
    connection.close()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> Iterator[str]:
    """URL of a migrated PostgreSQL database, to be emptied."""
    url = postgres.create_database()
    asyncio.run(_migrate(url.replace("postgresql:", "postgresql+asyncpg:", 1)))
    yield url
    postgres.drop_database(url)


@dataclass(frozen=True)
class Backend:
    """A database of the test's own. ``ask`` runs SQL through a connection of its own, and gives the first value."""

    name: str
    url: str
    ask: Callable[[str], str]

    @property
    def is_sqlite(self) -> bool:
        return self.name == "sqlite"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """An empty, migrated database on each of ``BACKENDS``; ``parametrize`` it indirectly for one of them."""
    if request.param == "sqlite":
        path = tmp_path / "taskwire.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)

        def ask(sql: str) -> str:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                (row,) = connection.execute(sql).fetchall() or [("",)]
                connection.commit()
                return str(row[0])

        return Backend("sqlite", f"sqlite+aiosqlite:///{path}", ask)
    postgres: Postgres = request.getfixturevalue("postgres")
    url: str = request.getfixturevalue("postgres_template")
    name = url.rpartition("/")[2]
    postgres.sql("TRUNCATE tasks, events, idempotency_keys RESTART IDENTITY", name)
    return Backend(
        "postgresql",
        url.replace("postgresql:", "postgresql+asyncpg:", 1),
        lambda sql: postgres.sql(sql, name),
    )


@dataclass
class Store:
    """A writer over a database, with what it published, and a clock that the test turns."""

    database: Database
    writer: Writer
    reader: TaskReader
    table: TaskTable
    published: list[Event] = field(default_factory=list)
    now: int = NOW

    def create(self, id: str, guard: Guard | None = None, **spec: Any) -> Command:
        task = new_task(make_spec(id, **spec))
        return Command(self.table, id, lambda present, now: (task, task), "user:ann", guard)

    def report(self, id: str, report: Report) -> Command:
        """A report; its answer is the task after it."""

        def apply(task: Task | None, now: int) -> tuple[Task, Task]:
            assert task is not None
            state, _ = apply_report(task.state, report, now)
            changed = task if state is task.state else Task(task.spec, state)
            return changed, changed

        return Command(self.table, id, apply, "key:k1")

    async def made(self, *ids: str) -> None:
        await self.writer.submit_many([self.create(id) for id in ids])
        self.published.clear()

    async def get(self, id: str) -> Task:
        """The task as it is stored."""
        return (await self.reader.get_many([id]))[id]

    @property
    def told(self) -> list[tuple[str, int, int]]:
        """What was published: (id, revision, urgency)."""
        return [(event.entity.spec.id, event.revision, int(event.urgency)) for event in self.published]


@asynccontextmanager
async def open_store(
    url: str,
    *,
    publish: Callable[[Sequence[Event]], None] | None = None,
    database: Database | None = None,
    started: bool = True,
    busy_timeout: float = 30,
    **options: Any,
) -> AsyncIterator[Store]:
    """A store; ``options`` are the writer's, ``busy_timeout`` the database's."""
    used = database or Database(url, busy_timeout=busy_timeout)
    events: list[Event] = []

    def keep(found: Sequence[Event]) -> None:
        events.extend(found)
        if publish is not None:
            publish(found)

    backend = used.url.get_backend_name()
    writer = Writer(used, keep, clock=lambda: store.now, **options)
    store = Store(used, writer, TaskReader(used), TaskTable(backend), events)
    if started:
        writer.start()
    try:
        yield store
    finally:
        if started:
            await writer.close()
        await used.close()
