"""``taskwire key``: API keys of producers, straight in the database."""

import time
from typing import Annotated, Any

import typer

from taskwire.cli.direct import CONSOLE, all_users, find_user, with_accounts
from taskwire.cli.options import ConfigFile, Data, DatabaseUrl, Expires, Json
from taskwire.cli.output import from_ms, local_time, note, print_json, print_table
from taskwire.services.accounts import AccountService, ApiKey, NewKey, User

app = typer.Typer(help="API keys (straight in the database).", no_args_is_help=True)


@app.command()
def add(
    user: Annotated[str, typer.Argument(metavar="USER", help="For whom the key acts.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "command line",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: read, write, report; repeatable. [default: read write]"),
    ] = None,
    expires: Expires = None,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Make an API key. It is printed this once; the database keeps a hash only."""

    async def work(accounts: AccountService) -> tuple[NewKey, User]:
        owner = await find_user(accounts, user)
        expires_at = None if expires is None else int((time.time() + expires) * 1000)
        scopes = scope or ["read", "write"]
        key = await accounts.create_key(
            CONSOLE, name=name, scopes=scopes, expires_at=expires_at, user_id=owner.id
        )
        return key, owner

    made, owner = with_accounts(work, data, database, config)
    if json:
        print_json(_out(made.key, owner) | {"token": made.token})
        return
    note(f"Key {made.key.id} of {owner.username}. It is shown this once only:")
    typer.echo(made.token)


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Argument(metavar="USER", help="Whose keys; all without.")] = None,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """API keys, revoked ones too."""

    async def work(accounts: AccountService) -> list[tuple[ApiKey, User]]:
        owners = [await find_user(accounts, user)] if user else [owner async for owner in all_users(accounts)]
        return [(key, owner) for owner in owners for key in await _keys(accounts, owner)]

    found = with_accounts(work, data, database, config)
    if json:
        print_json([_out(key, owner) for key, owner in found])
    elif found:
        rows = [
            (
                key.id,
                owner.username,
                " ".join(sorted(key.scopes)),
                _state(key),
                local_time(from_ms(key.last_used_at)).rpartition("(")[2].rstrip(")") or "never",
                key.name,
            )
            for key, owner in found
        ]
        print_table(("ID", "USER", "SCOPES", "STATE", "USED", "NAME"), rows, flexible="NAME")
    else:
        note("No API keys.")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="Id of a key.")],
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Make an API key useless."""

    async def work(accounts: AccountService) -> None:
        await accounts.revoke_key(CONSOLE, key_id)

    with_accounts(work, data, database, config)
    if json:
        print_json({"keyId": key_id, "revoked": True})
    else:
        note(f"Key {key_id} revoked.")


async def _keys(accounts: AccountService, owner: User) -> list[ApiKey]:
    found: list[ApiKey] = []
    after = None
    while page := await accounts.keys(CONSOLE, user_id=owner.id, after=after, limit=100):
        found += page
        after = page[-1].id
    return found


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "valid"
    return (
        "expired" if key.expires_at <= time.time() * 1000 else f"until {(from_ms(key.expires_at) or '')[:10]}"
    )


def _out(key: ApiKey, owner: User) -> dict[str, Any]:
    return {
        "keyId": key.id,
        "name": key.name,
        "userId": owner.id,
        "username": owner.username,
        "scopes": sorted(key.scopes),
        "createdAt": from_ms(key.created_at),
        "expiresAt": from_ms(key.expires_at),
        "revokedAt": from_ms(key.revoked_at),
        "lastUsedAt": from_ms(key.last_used_at),
    }
