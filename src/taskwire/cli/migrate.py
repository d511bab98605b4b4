"""``taskwire migrate``: bring the database to this version's tables."""

import asyncio
from typing import Annotated

import typer

from taskwire.cli import effective
from taskwire.cli.direct import open_database, shown
from taskwire.cli.options import ConfigFile, Data, DatabaseUrl, Json
from taskwire.cli.output import note, print_json
from taskwire.store.migrate import migrate as apply
from taskwire.store.migrate import pending


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only tell what is missing; exit code 1 if any.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="How long to wait for a database that is away or locked."
        ),
    ] = 60,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Bring the database to the tables of this version.

    The server does the same at its start.
    """
    settings = effective.load(data=data, database=database, config=config)

    async def run() -> tuple[str, list[str]]:
        async with open_database(settings, create=not check) as opened:
            done = await (pending(opened) if check else apply(opened, timeout=timeout))
            return shown(opened), done

    address, revisions = asyncio.run(run())
    if json:
        print_json({"database": address, "missing" if check else "applied": revisions})
    elif not revisions:
        note(f"{address} is up to date.")
    else:
        note(f"{address}: {'missing' if check else 'applied'} {', '.join(revisions)}.")
    raise typer.Exit(1 if check and revisions else 0)
