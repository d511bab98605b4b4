"""``taskwire login`` and ``logout``: keep a login for the commands that speak to a server."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from taskwire.cli import credentials
from taskwire.cli.errors import fail
from taskwire.cli.options import Json
from taskwire.cli.output import from_ms, note, print_json
from taskwire.cli.remote import DEFAULT_URL, UrlOption, login_of
from taskwire.client.address import base_url
from taskwire.client.errors import ClientError
from taskwire.client.rest import Rest


def login(
    username: Annotated[
        str | None, typer.Argument(metavar="USER", help="User name; asked for without.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Log in at a server and keep the login, readable for you alone."""
    base = base_url(url)
    if not password_stdin and not sys.stdin.isatty():
        fail("There is no terminal to ask for the password; use --password-stdin.")
    name = username or typer.prompt("User", default="admin")
    password = (
        sys.stdin.readline().rstrip("\r\n") if password_stdin else typer.prompt("Password", hide_input=True)
    )

    async def run() -> dict[str, Any]:
        async with Rest(base) as rest:
            return await rest.login(name, password)

    kept = login_of(asyncio.run(run()))
    credentials.save(base, kept)
    if json:
        print_json({"url": base, "username": kept.username, "expiresAt": from_ms(kept.expires_at)})
    else:
        note(f"Logged in at {base} as {kept.username}.")


def logout(url: UrlOption = DEFAULT_URL, json: Json = False) -> None:
    """End the saved login."""
    base = base_url(url)
    kept = credentials.remove(base)
    if kept is not None and kept.refresh_token:

        async def run() -> None:
            async with Rest(base) as rest:
                await rest.logout(kept.refresh_token)

        try:
            asyncio.run(run())
        except ClientError as error:  # forgotten here in any case
            note(f"The server could not be told: {error}", style="yellow")
    if json:
        print_json({"url": base, "loggedOut": kept is not None})
    else:
        note(f"Logged out at {base}." if kept is not None else f"Not logged in at {base}.")
