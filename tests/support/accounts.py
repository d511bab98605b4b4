"""Accounts for tests: a migrated database, quick password hashes, and a clock that the test turns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from argon2 import PasswordHasher

from taskwire.services.accounts import AccountService
from taskwire.settings import Settings
from taskwire.store.accounts import Accounts
from taskwire.store.database import Database
from taskwire.store.migrate import migrate

SECRET: Final = "the secret of the tests, which is long enough"
PASSWORD: Final = "correct horse battery"
QUICK: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Argon2 at its cheapest: what the tests look at does not depend on its cost."""

DATABASES: Final = ("sqlite", "postgresql")


def database_url(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """SQLAlchemy's URL of an empty database of the test's own, of one of ``DATABASES``."""
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{folder / 'taskwire.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url.replace("postgresql:", "postgresql+asyncpg:", 1)


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """A database with all tables."""
    database = Database(url)
    try:
        await migrate(database, timeout=30)
        yield database
    finally:
        await database.close()


class Clock:
    """Stands still until it is turned. Called: ms since 1970; ``seconds``: of a steady clock."""

    def __init__(self, now: int = 1_800_000_000_123) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def seconds(self) -> float:
        return self.now / 1000

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


def make_settings(**changes: Any) -> Settings:
    """The defaults but for ``changes``, whatever lies in the present folder."""
    return Settings(_env_file=None, **changes)


def make_service(
    accounts: Accounts,
    clock: Clock,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    hasher: PasswordHasher = QUICK,
    **settings: Any,
) -> AccountService:
    """The service over ``accounts``; ``settings`` differ from the defaults."""
    return AccountService(
        accounts,
        make_settings(**settings),
        SECRET,
        clock=clock,
        monotonic=clock.seconds,
        hasher=hasher,
        transport=transport,
    )
