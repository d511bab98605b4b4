"""``taskwire token``: a JWT for any user, made without their password."""

from typing import Annotated

import typer

from taskwire.cli.direct import find_user, with_accounts
from taskwire.cli.options import ConfigFile, Data, DatabaseUrl, Expires, Json
from taskwire.cli.output import from_ms, local_time, note, print_json
from taskwire.services.accounts import AccountService


def token(
    user: Annotated[str, typer.Argument(metavar="USER", help="User name.")] = "admin",
    expires: Expires = None,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print a JWT for a user, when the password is lost.

    Needs the server's settings: its database, and its secret (TASKWIRE_SECRET, or the file in its data folder).
    """

    async def work(accounts: AccountService) -> tuple[str, int]:
        found = await find_user(accounts, user)
        if found.disabled_at is not None:
            note(f"The user {found.username} is disabled: the token will be refused.")
        return await accounts.issue_token(found.id, lifetime=expires)

    made, expires_at = with_accounts(work, data, database, config, tokens=True)
    if json:
        print_json({"token": made, "expiresAt": from_ms(expires_at), "username": user})
        return
    note(f"Token of {user}, good until {local_time(from_ms(expires_at))}.")
    typer.echo(made)
