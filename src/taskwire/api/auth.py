"""``/api/v1/auth``: log in, stay logged in, log out, who am I, change the password."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints

from taskwire.api.common import (
    ApiModel,
    Credentials,
    InputModel,
    PrincipalDep,
    Time,
    current_principal,
    examples,
    services,
)
from taskwire.api.models import problems
from taskwire.core.errors import TaskwireError
from taskwire.services.accounts import Access, Login

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
# The length of passwords is for the service to judge, which says it by the settings.
Password = Annotated[str, StringConstraints(max_length=4096)]
RefreshToken = Annotated[str, StringConstraints(max_length=256)]

_TEAM = {"teamId": "team_06gz9k1xq3s7v2c5m8p4w6j9t0", "name": "Trailers"}
USER_EXAMPLE: dict[str, Any] = {
    "userId": "user_06gz9k1w2e5r8t0y3v6b9n2m4s",
    "username": "ada",
    "isAdmin": False,
    "teams": [_TEAM],
}
_LOGIN_EXAMPLE: dict[str, Any] = {
    "token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9…",
    "expiresAt": "2026-01-31T13:00:00.000Z",
    "refreshToken": "tw_refresh_06gz9k20a1b2c3d4e5f6g7h8j9_3f0c…",
    "refreshExpiresAt": "2026-03-02T12:00:00.000Z",
    "user": USER_EXAMPLE,
}
_REFRESH_EXAMPLE = {"refreshToken": _LOGIN_EXAMPLE["refreshToken"]}


class TeamRef(ApiModel):
    team_id: str
    name: str


class UserOut(ApiModel):
    """A user, with the teams they belong to."""

    user_id: str
    username: str
    is_admin: bool
    teams: list[TeamRef]


class LoginOut(ApiModel):
    """An open login. Use `token` until `expiresAt`, then get a new pair for `refreshToken`."""

    token: str
    expires_at: Time
    refresh_token: str = Field(description="Good for one use, which gives the next one.")
    refresh_expires_at: Time
    user: UserOut

    model_config = examples(_LOGIN_EXAMPLE)


class MeOut(UserOut):
    """Who the token belongs to, and what it covers."""

    scopes: list[str]
    expires_at: Time | None
    key_id: str | None = Field(description="The API key that was sent, null for a login.")

    model_config = examples(
        USER_EXAMPLE | {"scopes": ["read", "write"], "expiresAt": "2026-01-31T13:00:00.000Z", "keyId": None}
    )


class LoginIn(InputModel):
    username: Name
    password: Password

    model_config = examples({"username": "ada", "password": "correct horse battery"})


class RefreshIn(InputModel):
    refresh_token: RefreshToken

    model_config = examples(_REFRESH_EXAMPLE)


class LogoutIn(InputModel):
    refresh_token: RefreshToken | None = None
    everywhere: bool = Field(False, description="End every login of the user at once; needs a valid token.")

    model_config = examples(_REFRESH_EXAMPLE, {"everywhere": True})


class PasswordIn(InputModel):
    current_password: Password
    new_password: Password

    model_config = examples(
        {"currentPassword": "correct horse battery", "newPassword": "staple and a longer one"}
    )


def user_out(access: Access) -> UserOut:
    """A user as the API shows them to themselves."""
    teams = [TeamRef(team_id=team.id, name=team.name) for team in access.teams]
    user = access.user
    return UserOut(user_id=user.id, username=user.username, is_admin=user.is_admin, teams=teams)


def _login_out(login: Login) -> LoginOut:
    return LoginOut(
        token=login.token,
        expires_at=login.expires_at,
        refresh_token=login.refresh_token,
        refresh_expires_at=login.refresh_expires_at,
        user=user_out(login.access),
    )


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


@router.post(
    "/login",
    summary="Log in",
    description="The `token` goes into `Authorization: Bearer …` of everything else, and into `auth` messages.",
    responses=problems("INVALID_CREDENTIALS", "INVALID_REQUEST", "RATE_LIMITED", "UNAVAILABLE"),
)
async def login(request: Request, body: LoginIn) -> LoginOut:
    accounts = services(request).accounts
    return _login_out(await accounts.login(body.username, body.password, _address(request)))


@router.post(
    "/refresh",
    summary="Get new tokens",
    description="Takes a refresh token once. One that comes a second time was copied, and ends the whole login.",
    responses=problems("UNAUTHORIZED", "INVALID_REQUEST", "UNAVAILABLE"),
)
async def refresh(request: Request, body: RefreshIn) -> LoginOut:
    return _login_out(await services(request).accounts.refresh(body.refresh_token))


@router.post(
    "/logout",
    status_code=204,
    summary="Log out",
    description="Ends the login of the token in the header, or of the refresh token in the body: neither needs to be "
    "valid still. An access token runs on until it expires, unless `everywhere` is asked for.",
    responses=problems("UNAUTHORIZED", "INVALID_REQUEST", "UNAVAILABLE"),
)
async def logout(request: Request, credentials: Credentials, body: LogoutIn | None = None) -> None:
    accounts = services(request).accounts
    refresh_token = body.refresh_token if body is not None else None
    if body is not None and body.everywhere:
        principal = await current_principal(request, credentials)
        if principal.key_id is not None:
            raise TaskwireError("FORBIDDEN", "An API key cannot end logins; log in for that.")
        await accounts.logout_everywhere(principal.user_id)
    elif credentials is None and refresh_token is None:
        raise TaskwireError("UNAUTHORIZED", "Send the token to log out with, or `refreshToken` in the body.")
    else:
        token = credentials.credentials if credentials is not None else None
        await accounts.logout(refresh_token=refresh_token, access_token=token)


@router.get("/me", summary="Who am I?", responses=problems("UNAUTHORIZED", "TOKEN_EXPIRED", "UNAVAILABLE"))
async def me(request: Request, principal: PrincipalDep) -> MeOut:
    user = user_out(await services(request).accounts.user(principal.user_id))
    return MeOut(
        **dict(user),
        scopes=sorted(principal.scopes),
        expires_at=principal.expires_at,
        key_id=principal.key_id,
    )


@router.post(
    "/password",
    summary="Change the password",
    description="Ends every login of yours; the answer is a new one. API keys go on working.",
    responses=problems("INVALID_CREDENTIALS", "UNAUTHORIZED", "FORBIDDEN", "INVALID_REQUEST", "RATE_LIMITED"),
)
async def change_password(request: Request, principal: PrincipalDep, body: PasswordIn) -> LoginOut:
    accounts = services(request).accounts
    return _login_out(
        await accounts.change_password(principal, body.current_password, body.new_password, _address(request))
    )
