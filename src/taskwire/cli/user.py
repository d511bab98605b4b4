"""``taskwire user``: people, straight in the database."""

import sys
from typing import Annotated, Any

import typer

from taskwire.cli.direct import all_users, find_user, with_accounts
from taskwire.cli.errors import fail
from taskwire.cli.options import ConfigFile, Data, DatabaseUrl, Json
from taskwire.cli.output import from_ms, local_time, note, print_json, print_table
from taskwire.services.accounts import AccountService, User, new_password

app = typer.Typer(help="Users (straight in the database).", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="User name.")]
FromInput = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password up and print it.")]


@app.command()
def add(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="May see and do everything.")] = False,
    password_stdin: FromInput = False,
    generate: Generate = False,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Make a user."""
    password = _password(name, from_input=password_stdin, generate=generate)

    async def work(accounts: AccountService) -> User:
        return await accounts.create_user(name, password, is_admin=admin)

    user = with_accounts(work, data, database, config)
    _tell(user, "made", password if generate else None, json=json)


@app.command("list")
def list_(
    data: Data = None, database: DatabaseUrl = None, config: ConfigFile = None, json: Json = False
) -> None:
    """All users, oldest first."""

    async def work(accounts: AccountService) -> list[tuple[User, list[str]]]:
        users = [user async for user in all_users(accounts)]
        return [(user, [team.name for team in (await accounts.user(user.id)).teams]) for user in users]

    found = with_accounts(work, data, database, config)
    if json:
        print_json([{**_out(user), "teams": teams} for user, teams in found])
        return
    rows = [
        (
            user.username,
            "admin" if user.is_admin else "",
            "disabled" if user.disabled_at is not None else "provider" if user.issuer else "active",
            ", ".join(teams),
            local_time(from_ms(user.created_at)),
            user.id,
        )
        for user, teams in found
    ]
    print_table(("NAME", "RIGHTS", "STATE", "TEAMS", "CREATED", "ID"), rows, flexible="TEAMS")


@app.command()
def passwd(
    name: Name,
    password_stdin: FromInput = False,
    generate: Generate = False,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Set a password; ends the user's logins."""
    password = _password(name, from_input=password_stdin, generate=generate)

    async def work(accounts: AccountService) -> User:
        return await accounts.update_user((await find_user(accounts, name)).id, password=password)

    user = with_accounts(work, data, database, config)
    _tell(user, "has a new password", password if generate else None, json=json)


@app.command()
def disable(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Let them in again.")] = False,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Lock a user out, their API keys too; what is theirs stays."""

    async def work(accounts: AccountService) -> User:
        return await accounts.update_user((await find_user(accounts, name)).id, disabled=not undo)

    user = with_accounts(work, data, database, config)
    _tell(user, "enabled" if undo else "disabled", json=json)


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Delete a user with their keys and logins; their tasks stay."""
    if not yes:
        typer.confirm(f"Delete the user {name!r} for good?", abort=True)

    async def work(accounts: AccountService) -> User:
        user = await find_user(accounts, name)
        await accounts.delete_user(user.id)
        return user

    _tell(with_accounts(work, data, database, config), "deleted", json=json)


def _password(name: str, *, from_input: bool, generate: bool) -> str:
    """A password for ``name`` from where the options say; asked for on the terminal without any."""
    if generate:
        return new_password()
    if from_input:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        fail("There is no terminal to ask for the password; use --password-stdin or --generate.")
    password: str = typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True)
    return password


def _out(user: User) -> dict[str, Any]:
    return {
        "userId": user.id,
        "username": user.username,
        "isAdmin": user.is_admin,
        "disabled": user.disabled_at is not None,
        "createdAt": from_ms(user.created_at),
    }


def _tell(user: User, what: str, password: str | None = None, *, json: bool) -> None:
    if json:
        print_json(_out(user) | ({} if password is None else {"password": password}))
        return
    note(f"User {user.username} {what}.")
    if password is not None:
        typer.echo(password)
