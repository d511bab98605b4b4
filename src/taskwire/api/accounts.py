"""``/api/v1/users``, ``/teams``, ``/keys``: who there is, who works with whom, and the keys of producers."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, Field, StringConstraints

from taskwire.api.auth import USER_EXAMPLE, Password
from taskwire.api.common import (
    AdminReader,
    AdminWriter,
    ApiModel,
    InputModel,
    Page,
    PageDep,
    Reader,
    Time,
    WriterPrincipal,
    examples,
    services,
)
from taskwire.api.models import problems
from taskwire.services.accounts import ApiKey, Member, Team, User

router = APIRouter(prefix="/api/v1")

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Id = Annotated[str, StringConstraints(max_length=160)]
OwnerQuery = Annotated[Id | None, Query(alias="userId", description="Administrators: another user's keys.")]
Scope = Literal["read", "write", "report"]

_CREATED = "2026-01-31T12:00:00.000Z"
_TEAM: dict[str, Any] = {
    "teamId": "team_06gz9k1xq3s7v2c5m8p4w6j9t0",
    "name": "Trailers",
    "createdAt": _CREATED,
}
_KEY: dict[str, Any] = {
    "keyId": "key_06gz9k2fb7n3r5t8w1y4a6c9e0",
    "userId": USER_EXAMPLE["userId"],
    "name": "render farm",
    "scopes": ["report"],
    "createdAt": _CREATED,
    "expiresAt": None,
    "revokedAt": None,
    "lastUsedAt": None,
}


class AccountOut(ApiModel):
    """A user as administrators see them."""

    user_id: str
    username: str
    is_admin: bool
    disabled: bool
    issuer: str | None = Field(description="The identity provider they log in at, null for a password here.")
    created_at: Time

    model_config = examples(
        {
            "userId": USER_EXAMPLE["userId"],
            "username": "ada",
            "isAdmin": False,
            "disabled": False,
            "issuer": None,
            "createdAt": _CREATED,
        }
    )


class UserIn(InputModel):
    username: Name = Field(
        description="Taken as it is written, but no two may differ in upper and lower case alone."
    )
    password: Password
    is_admin: bool = False

    model_config = examples({"username": "ada", "password": "correct horse battery"})


class UserPatch(InputModel):
    """What is left out stays as it is."""

    is_admin: bool | None = None
    disabled: bool | None = Field(
        None, description="A disabled user cannot log in; their tokens and keys are refused."
    )
    password: Password | None = Field(None, description="Setting one ends the user's logins.")

    model_config = examples({"disabled": True})


class TeamOut(ApiModel):
    team_id: str
    name: str
    created_at: Time

    model_config = examples(_TEAM)


class TeamIn(InputModel):
    name: Name

    model_config = examples({"name": "Trailers"})


class MemberOut(ApiModel):
    """A user in a team; `createdAt` is when they joined."""

    user_id: str
    username: str
    created_at: Time

    model_config = examples({"userId": USER_EXAMPLE["userId"], "username": "ada", "createdAt": _CREATED})


class KeyOut(ApiModel):
    """An API key, without its secret."""

    key_id: str
    user_id: str
    name: str
    scopes: list[str]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None = Field(description="To the minute.")

    model_config = examples(_KEY)


class NewKeyOut(KeyOut):
    """An API key just made."""

    key: str = Field(description="The key itself. It is shown this once.")

    model_config = examples(_KEY | {"key": "tw_06gz9k2fb7n3r5t8w1y4a6c9e0_9b1e…"})


class KeyIn(InputModel):
    name: Name = Field(description="What the key is for.")
    scopes: list[Scope] = Field(
        ["report"],
        min_length=1,
        max_length=3,
        description="`read`: see tasks; `write`: make and change them, and report; `report`: only report progress.",
    )
    expires_at: AwareDatetime | None = Field(None, description="Null: the key holds until it is revoked.")
    user_id: Id | None = Field(None, description="Administrators: make the key for another user.")

    model_config = examples({"name": "render farm", "scopes": ["report"]})


def _account(user: User) -> AccountOut:
    return AccountOut(
        user_id=user.id,
        username=user.username,
        is_admin=user.is_admin,
        disabled=user.disabled_at is not None,
        issuer=user.issuer,
        created_at=user.created_at,
    )


def _team(team: Team) -> TeamOut:
    return TeamOut(team_id=team.id, name=team.name, created_at=team.created_at)


def _member(member: Member) -> MemberOut:
    return MemberOut(user_id=member.user_id, username=member.username, created_at=member.created_at)


def _key(key: ApiKey) -> KeyOut:
    return KeyOut(
        key_id=key.id,
        user_id=key.user_id,
        name=key.name,
        scopes=sorted(key.scopes),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    )


# Users


@router.get(
    "/users",
    tags=["users"],
    summary="List users",
    description="All of them, in the order of their creation. For administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "INVALID_REQUEST"),
)
async def list_users(request: Request, _: AdminReader, page: PageDep) -> Page[AccountOut]:
    found = await services(request).accounts.users(after=page.cursor, limit=page.fetch)
    users, after = page.cut(found, lambda user: user.id)
    return Page[AccountOut](items=[_account(user) for user in users], next_cursor=after)


@router.post(
    "/users",
    tags=["users"],
    status_code=201,
    summary="Create a user",
    description="For administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "ALREADY_EXISTS", "INVALID_REQUEST"),
)
async def create_user(request: Request, _: AdminWriter, body: UserIn) -> AccountOut:
    accounts = services(request).accounts
    return _account(await accounts.create_user(body.username, body.password, is_admin=body.is_admin))


@router.patch(
    "/users/{user_id}",
    tags=["users"],
    summary="Change a user",
    description="For administrators. The last enabled administrator cannot be disabled, nor made an ordinary user.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "CONFLICT", "INVALID_REQUEST"),
)
async def update_user(request: Request, _: AdminWriter, user_id: str, body: UserPatch) -> AccountOut:
    user = await services(request).accounts.update_user(
        user_id, is_admin=body.is_admin, disabled=body.disabled, password=body.password
    )
    return _account(user)


@router.delete(
    "/users/{user_id}",
    tags=["users"],
    status_code=204,
    summary="Delete a user",
    description="With their logins, API keys and memberships; their tasks stay. For administrators. Somebody who logs "
    "in at the identity provider comes back as a new user: disable them to keep them out.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "CONFLICT", "INVALID_REQUEST"),
)
async def delete_user(request: Request, _: AdminWriter, user_id: str) -> None:
    await services(request).accounts.delete_user(user_id)


# Teams


@router.get(
    "/teams",
    tags=["teams"],
    summary="List teams",
    description="Those you belong to; all of them for administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "INVALID_REQUEST"),
)
async def list_teams(request: Request, principal: Reader, page: PageDep) -> Page[TeamOut]:
    found = await services(request).accounts.teams(principal, after=page.cursor, limit=page.fetch)
    teams, after = page.cut(found, lambda team: team.id)
    return Page[TeamOut](items=[_team(team) for team in teams], next_cursor=after)


@router.post(
    "/teams",
    tags=["teams"],
    status_code=201,
    summary="Create a team",
    description="For administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "ALREADY_EXISTS", "INVALID_REQUEST"),
)
async def create_team(request: Request, _: AdminWriter, body: TeamIn) -> TeamOut:
    return _team(await services(request).accounts.create_team(body.name))


@router.patch(
    "/teams/{team_id}",
    tags=["teams"],
    summary="Rename a team",
    description="For administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "ALREADY_EXISTS", "INVALID_REQUEST"),
)
async def rename_team(request: Request, _: AdminWriter, team_id: str, body: TeamIn) -> TeamOut:
    return _team(await services(request).accounts.rename_team(team_id, body.name))


@router.delete(
    "/teams/{team_id}",
    tags=["teams"],
    status_code=204,
    summary="Delete a team",
    description="The team's tasks stay with their owners. For administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "INVALID_REQUEST"),
)
async def delete_team(request: Request, _: AdminWriter, team_id: str) -> None:
    await services(request).accounts.delete_team(team_id)


@router.get(
    "/teams/{team_id}/members",
    tags=["teams"],
    summary="List a team's members",
    description="For members and administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "INVALID_REQUEST"),
)
async def list_members(request: Request, principal: Reader, team_id: str, page: PageDep) -> Page[MemberOut]:
    accounts = services(request).accounts
    found = await accounts.members(principal, team_id, after=page.cursor, limit=page.fetch)
    members, after = page.cut(found, lambda member: member.user_id)
    return Page[MemberOut](items=[_member(member) for member in members], next_cursor=after)


@router.put(
    "/teams/{team_id}/members/{user_id}",
    tags=["teams"],
    status_code=204,
    summary="Add a member",
    description="No error for somebody who belongs to the team already. For administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "INVALID_REQUEST"),
)
async def add_member(request: Request, _: AdminWriter, team_id: str, user_id: str) -> None:
    await services(request).accounts.add_member(team_id, user_id)


@router.delete(
    "/teams/{team_id}/members/{user_id}",
    tags=["teams"],
    status_code=204,
    summary="Remove a member",
    description="They lose sight of the team's tasks at once, on open connections too. For administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "INVALID_REQUEST"),
)
async def remove_member(request: Request, _: AdminWriter, team_id: str, user_id: str) -> None:
    await services(request).accounts.remove_member(team_id, user_id)


# API keys


@router.get(
    "/keys",
    tags=["keys"],
    summary="List API keys",
    description="Yours, revoked ones too; with `userId`, administrators see those of another user.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "INVALID_REQUEST"),
)
async def list_keys(
    request: Request, principal: Reader, page: PageDep, user_id: OwnerQuery = None
) -> Page[KeyOut]:
    found = await services(request).accounts.keys(
        principal, user_id=user_id, after=page.cursor, limit=page.fetch
    )
    keys, after = page.cut(found, lambda key: key.id)
    return Page[KeyOut](items=[_key(key) for key in keys], next_cursor=after)


@router.post(
    "/keys",
    tags=["keys"],
    status_code=201,
    summary="Create an API key",
    description="The `key` in the answer is shown this once. Needs a login: a key cannot make keys.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "CONFLICT", "INVALID_REQUEST"),
)
async def create_key(request: Request, principal: WriterPrincipal, body: KeyIn) -> NewKeyOut:
    new = await services(request).accounts.create_key(
        principal,
        name=body.name,
        scopes=body.scopes,
        expires_at=int(body.expires_at.timestamp() * 1000) if body.expires_at is not None else None,
        user_id=body.user_id,
    )
    return NewKeyOut(**dict(_key(new.key)), key=new.token)


@router.delete(
    "/keys/{key_id}",
    tags=["keys"],
    status_code=204,
    summary="Revoke an API key",
    description="It is refused from now on; revoking twice is no error. One's own, or anybody's for administrators.",
    responses=problems("UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "INVALID_REQUEST"),
)
async def revoke_key(request: Request, principal: WriterPrincipal, key_id: str) -> None:
    await services(request).accounts.revoke_key(principal, key_id)
