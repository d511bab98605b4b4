"""Accounts straight in the database, with no server in between: an administrator who has lost every way in gets back.

A running server learns of such changes within seconds, since it keeps what it has read no longer.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from taskwire.cli import effective
from taskwire.cli.errors import fail
from taskwire.core.errors import NotFound
from taskwire.core.principals import Principal
from taskwire.logs import register_secret
from taskwire.services.accounts import AccountService, Team, User
from taskwire.services.secret import FILE_NAME as SECRET_FILE
from taskwire.services.secret import installation_secret
from taskwire.settings import Settings
from taskwire.store.accounts import Accounts
from taskwire.store.database import Database
from taskwire.store.migrate import pending

T = TypeVar("T")

CONSOLE = Principal("console", "console", is_admin=True)
"""Whoever may open the database may do anything."""


def with_accounts(
    work: Callable[[AccountService], Awaitable[T]],
    data: Path | None,
    database: str | None,
    config: str | None,
    *,
    tokens: bool = False,
) -> T:
    """Run ``work`` with the accounts of the installation that the settings name; ``tokens``: it issues some."""
    settings = effective.load(data=data, database=database, config=config)

    async def run() -> T:
        async with open_accounts(settings, tokens=tokens) as accounts:
            return await work(accounts)

    return asyncio.run(run())


@asynccontextmanager
async def open_accounts(settings: Settings, *, tokens: bool = False) -> AsyncIterator[AccountService]:
    """The accounts in the database of ``settings``. Fails unless it is there and up to date.

    Only with ``tokens`` can it issue and verify tokens, for which the installation's secret must be there as well.
    """
    if tokens and not settings.secret.get_secret_value() and not (settings.data / SECRET_FILE).exists():
        fail(
            f"The server's secret is not here: set TASKWIRE_SECRET, or name the server's --data (not {settings.data})."
        )
    async with open_database(settings) as database:
        missing = await pending(database)
        if missing:
            fail(
                f"The database {shown(database)} lacks the tables of this version; "
                "start the server, or use `taskwire migrate`."
            )
        # A secret must not be made up here, in what may be the wrong folder, for what does not need one.
        secret = installation_secret(settings) if tokens else secrets.token_hex(32)
        accounts = AccountService(Accounts(database), settings, secret)
        try:
            yield accounts
        finally:
            await accounts.close()


@asynccontextmanager
async def open_database(settings: Settings, *, create: bool = False) -> AsyncIterator[Database]:
    """The database of ``settings``; a SQLite file that is not there is made only if ``create`` says so."""
    file = sqlite_file(settings)
    if file is not None and not file.exists() and not create:
        fail(
            f"There is no database at {file}. Name the server's --data or --database, "
            "or make a new one with `taskwire migrate`."
        )
    database = Database(settings.database_url, pool_size=1, synchronous=settings.sqlite_synchronous)
    if database.url.password:
        register_secret(str(database.url.password))
    try:
        yield database
    finally:
        await database.close()


def sqlite_file(settings: Settings) -> Path | None:
    """The database's file; None for PostgreSQL and for a database in memory."""
    scheme, _, path = settings.database_url.partition(":///")
    path = path.partition("?")[0]
    return Path(path) if scheme.startswith("sqlite") and path not in ("", ":memory:") else None


def shown(database: Database) -> str:
    """The database's address without its password."""
    url = database.url.set(drivername=database.url.get_backend_name())  # as people write it
    return url.render_as_string(hide_password=True)


async def find_user(accounts: AccountService, name: str) -> User:
    """By name. Raises NotFound, naming it."""
    try:
        return await accounts.find_user(name)
    except NotFound:
        raise NotFound(message=f"There is no user {name!r}.") from None


async def find_team(accounts: AccountService, name: str) -> Team:
    """By name or id. Raises NotFound, naming it."""
    async for team in all_teams(accounts):
        if name in (team.id, team.name):
            return team
    raise NotFound(message=f"There is no team {name!r}.")


async def all_users(accounts: AccountService) -> AsyncIterator[User]:
    """Every user, in the order of their creation."""
    after = None
    while page := await accounts.users(after=after, limit=100):
        for user in page:
            yield user
        after = page[-1].id


async def all_teams(accounts: AccountService) -> AsyncIterator[Team]:
    """Every team, in the order of their creation."""
    after = None
    while page := await accounts.teams(CONSOLE, after=after, limit=100):
        for team in page:
            yield team
        after = page[-1].id
