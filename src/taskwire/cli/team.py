"""``taskwire team``: teams and who belongs to them, straight in the database."""

from typing import Annotated, Any

import typer

from taskwire.cli.direct import CONSOLE, all_teams, find_team, find_user, with_accounts
from taskwire.cli.options import ConfigFile, Data, DatabaseUrl, Json
from taskwire.cli.output import from_ms, local_time, note, print_json, print_table
from taskwire.services.accounts import AccountService, Team

app = typer.Typer(help="Teams (straight in the database).", no_args_is_help=True)

TeamName = Annotated[str, typer.Argument(metavar="TEAM", help="Name or id of a team.")]
UserName = Annotated[str, typer.Argument(metavar="USER", help="User name.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new team's name.")],
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Make a team."""

    async def work(accounts: AccountService) -> Team:
        return await accounts.create_team(name)

    _tell(with_accounts(work, data, database, config), "made", json=json)


@app.command("list")
def list_(
    data: Data = None, database: DatabaseUrl = None, config: ConfigFile = None, json: Json = False
) -> None:
    """All teams and their members."""

    async def work(accounts: AccountService) -> list[tuple[Team, list[str]]]:
        return [(team, await _members(accounts, team)) async for team in all_teams(accounts)]

    found = with_accounts(work, data, database, config)
    if json:
        print_json([{**_out(team), "members": members} for team, members in found])
    elif found:
        rows = [
            (team.name, ", ".join(members), local_time(from_ms(team.created_at)), team.id)
            for team, members in found
        ]
        print_table(("NAME", "MEMBERS", "CREATED", "ID"), rows, flexible="MEMBERS")
    else:
        note("No teams.")


@app.command()
def remove(
    team: TeamName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Delete a team; its tasks stay with their owners."""
    if not yes:
        typer.confirm(f"Delete the team {team!r} for good?", abort=True)

    async def work(accounts: AccountService) -> Team:
        found = await find_team(accounts, team)
        await accounts.delete_team(found.id)
        return found

    _tell(with_accounts(work, data, database, config), "deleted", json=json)


@app.command()
def join(
    team: TeamName,
    user: UserName,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Put a user into a team."""

    async def work(accounts: AccountService) -> Team:
        found = await find_team(accounts, team)
        await accounts.add_member(found.id, (await find_user(accounts, user)).id)
        return found

    _tell(with_accounts(work, data, database, config), f"has the member {user}", json=json)


@app.command()
def leave(
    team: TeamName,
    user: UserName,
    data: Data = None,
    database: DatabaseUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Take a user out of a team."""

    async def work(accounts: AccountService) -> Team:
        found = await find_team(accounts, team)
        await accounts.remove_member(found.id, (await find_user(accounts, user)).id)
        return found

    _tell(with_accounts(work, data, database, config), f"no longer has the member {user}", json=json)


async def _members(accounts: AccountService, team: Team) -> list[str]:
    names: list[str] = []
    after = None
    while page := await accounts.members(CONSOLE, team.id, after=after, limit=100):
        names += [member.username for member in page]
        after = page[-1].user_id
    return names


def _out(team: Team) -> dict[str, Any]:
    return {"teamId": team.id, "name": team.name, "createdAt": from_ms(team.created_at)}


def _tell(team: Team, what: str, *, json: bool) -> None:
    if json:
        print_json(_out(team))
    else:
        note(f"Team {team.name} {what}.")
