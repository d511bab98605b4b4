"""Which server the commands speak to, and as whom."""

import asyncio
import time
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from taskwire.cli import credentials
from taskwire.cli.credentials import Login
from taskwire.client.address import base_url
from taskwire.client.errors import LoginRefused
from taskwire.client.rest import Rest, TokenSource

DEFAULT_URL: Final = "http://127.0.0.1:3000"
_FRESH: Final = 60_000  # ms that a token must still hold to be used without renewing it first

UrlOption = Annotated[
    str, typer.Option("--url", envvar="TASKWIRE_URL", metavar="URL", help="Address of the server.")
]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token", envvar="TASKWIRE_TOKEN", metavar="TOKEN", help="JWT or API key. Default: the saved login."
    ),
]


def connect(url: str, token: str) -> Rest:
    """A client for the server at ``url``, with ``token`` or else the saved login. Raises LoginRefused."""
    base = base_url(url)
    if token:
        return Rest(base, token)
    if credentials.find(base) is None:
        raise LoginRefused(
            "UNAUTHORIZED",
            f"Not logged in at {base}. Use `taskwire login --url {base}`, or give --token or TASKWIRE_TOKEN.",
        )
    return Rest(base, saved_token(base))


def saved_token(base: str) -> TokenSource:
    """The token of the saved login, renewed when it is about to expire."""

    async def token() -> str:
        login = credentials.find(base)
        if login is not None and _is_fresh(login):
            return login.token
        return await asyncio.to_thread(_renew, base)

    return token


def login_of(answer: dict[str, Any]) -> Login:
    """What to keep of the server's answer to a login."""
    user = answer.get("user") or {}
    expires = datetime.fromisoformat(str(answer["expiresAt"]))
    return Login(
        username=str(user.get("username", "")),
        token=str(answer["token"]),
        expires_at=int(expires.timestamp() * 1000),
        refresh_token=str(answer.get("refreshToken") or ""),
    )


def _is_fresh(login: Login) -> bool:
    return login.expires_at - time.time() * 1000 > _FRESH


def _renew(base: str) -> str:
    """Renew the saved login, unless another process has just done so (a refresh token is good for one use)."""
    with credentials.exclusive():
        login = credentials.find(base)
        if login is not None and _is_fresh(login):
            return login.token
        if login is None or not login.refresh_token:
            raise LoginRefused(
                "TOKEN_EXPIRED", f"The login at {base} has expired; use `taskwire login` again."
            )

        async def refresh() -> dict[str, Any]:
            async with Rest(base) as rest:
                return await rest.refresh(login.refresh_token)

        try:
            renewed = login_of(asyncio.run(refresh()))
        except LoginRefused:
            raise LoginRefused(
                "UNAUTHORIZED", f"The login at {base} has ended; use `taskwire login` again."
            ) from None
        credentials.replace_locked(base, renewed)
        return renewed.token
