"""``/api/v1/auth`` over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from taskwire.api import accounts as account_routes
from taskwire.api import auth
from taskwire.api.common import iso
from taskwire.services.accounts import AccountService
from taskwire.store.accounts import Accounts, User
from tests.support.accounts import PASSWORD, Clock, make_service, make_settings, open_database
from tests.support.api import client_of, make_app, problem_of

pytestmark = pytest.mark.anyio

WHO = {"username": "Ada", "password": PASSWORD}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def service(tmp_path: Path, clock: Clock) -> AsyncIterator[AccountService]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'taskwire.db'}") as database:
        made = make_service(Accounts(database), clock, login_attempts=3)
        yield made
        await made.close()


@pytest.fixture
async def client(service: AccountService) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app([auth.router, account_routes.router], accounts=service, settings=make_settings())
    async with client_of(app) as made:
        yield made


@pytest.fixture
async def ada(service: AccountService) -> User:
    await service.create_user("root", PASSWORD, is_admin=True)
    return await service.create_user("Ada", PASSWORD)


async def log_in(client: httpx.AsyncClient) -> dict[str, Any]:
    response = await client.post("/api/v1/auth/login", json=WHO)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_login_answers_tokens_and_who_it_is(
    client: httpx.AsyncClient, service: AccountService, clock: Clock, ada: User
) -> None:
    team = await service.create_team("Red")
    await service.add_member(team.id, ada.id)
    body = await log_in(client)
    assert body == {
        "token": body["token"],
        "expiresAt": iso(clock() + 3600_000),
        "refreshToken": body["refreshToken"],
        "refreshExpiresAt": iso(clock() + 30 * 86_400_000),
        "user": {
            "userId": ada.id,
            "username": "Ada",
            "isAdmin": False,
            "teams": [{"teamId": team.id, "name": "Red"}],
        },
    }
    me = await client.get("/api/v1/auth/me", headers=bearer(body["token"]))
    assert me.json() == {
        **body["user"],
        "scopes": ["read", "write"],
        "expiresAt": body["expiresAt"],
        "keyId": None,
    }


async def test_a_wrong_password(client: httpx.AsyncClient, ada: User) -> None:
    response = await client.post("/api/v1/auth/login", json=WHO | {"password": "wrong"})
    problem_of(response, 401, "INVALID_CREDENTIALS")
    assert response.headers["www-authenticate"] == "Bearer"


async def test_too_many_wrong_passwords(client: httpx.AsyncClient, clock: Clock, ada: User) -> None:
    for number in range(3):
        await client.post("/api/v1/auth/login", json={"username": f"name{number}", "password": "wrong"})
    response = await client.post("/api/v1/auth/login", json=WHO)
    body = problem_of(response, 429, "RATE_LIMITED")
    assert body["retryable"] is True
    assert response.headers["retry-after"] == "300"
    clock.advance(300)
    await log_in(client)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "Ada"},
        WHO | {"more": 1},
        {"username": 5, "password": PASSWORD},
        {"username": "", "password": PASSWORD},
        {"username": "a\0", "password": PASSWORD},
        {"username": "Ada", "password": "\0" * 8},
        {"username": "x" * 257, "password": PASSWORD},
        {"username": "Ada", "password": "x" * 4097},
        [],
        None,
        "x",
    ],
)
@pytest.mark.parametrize("path", ["login", "refresh"])
async def test_malformed_logins(client: httpx.AsyncClient, path: str, body: Any) -> None:
    body = problem_of(await client.post(f"/api/v1/auth/{path}", json=body), 422, "INVALID_REQUEST")
    assert body["errors"]
    assert PASSWORD not in str(body)


async def test_new_tokens(client: httpx.AsyncClient, clock: Clock, ada: User) -> None:
    first = await log_in(client)
    clock.advance(3600)
    problem_of(await client.get("/api/v1/auth/me", headers=bearer(first["token"])), 401, "TOKEN_EXPIRED")
    response = await client.post("/api/v1/auth/refresh", json={"refreshToken": first["refreshToken"]})
    second = response.json()
    assert second.keys() == first.keys()
    assert (await client.get("/api/v1/auth/me", headers=bearer(second["token"]))).status_code == 200
    for token in (first["refreshToken"], second["refreshToken"]):
        response = await client.post("/api/v1/auth/refresh", json={"refreshToken": token})
        problem_of(response, 401, "UNAUTHORIZED")


@pytest.mark.parametrize("by", ["header", "body", "both"])
async def test_logging_out(client: httpx.AsyncClient, ada: User, by: str) -> None:
    login = await log_in(client)
    refresh = {"refreshToken": login["refreshToken"]}
    response = await client.post(
        "/api/v1/auth/logout",
        headers=bearer(login["token"]) if by != "body" else {},
        json=refresh if by != "header" else None,
    )
    assert (response.status_code, response.content) == (204, b"")
    problem_of(await client.post("/api/v1/auth/refresh", json=refresh), 401, "UNAUTHORIZED")
    assert (await client.post("/api/v1/auth/logout", json=refresh)).status_code == 204


async def test_logging_out_everywhere(client: httpx.AsyncClient, service: AccountService, ada: User) -> None:
    one, two = await log_in(client), await log_in(client)
    key = (
        await client.post(
            "/api/v1/keys", headers=bearer(one["token"]), json={"name": "k", "scopes": ["read"]}
        )
    ).json()
    everywhere = {"everywhere": True}
    problem_of(await client.post("/api/v1/auth/logout", json=everywhere), 401, "UNAUTHORIZED")
    problem_of(
        await client.post("/api/v1/auth/logout", json=everywhere, headers=bearer(key["key"])),
        403,
        "FORBIDDEN",
    )
    response = await client.post("/api/v1/auth/logout", json=everywhere, headers=bearer(one["token"]))
    assert response.status_code == 204
    for token in (one["token"], two["token"]):
        problem_of(await client.get("/api/v1/auth/me", headers=bearer(token)), 401, "UNAUTHORIZED")
    assert (await client.get("/api/v1/auth/me", headers=bearer(key["key"]))).status_code == 200


async def test_logging_out_needs_something_to_end(client: httpx.AsyncClient) -> None:
    problem_of(await client.post("/api/v1/auth/logout"), 401, "UNAUTHORIZED")
    problem_of(await client.post("/api/v1/auth/logout", json={}), 401, "UNAUTHORIZED")


async def test_a_new_password(client: httpx.AsyncClient, ada: User) -> None:
    old = await log_in(client)
    change = {"currentPassword": PASSWORD, "newPassword": "a better password"}
    problem_of(await client.post("/api/v1/auth/password", json=change), 401, "UNAUTHORIZED")
    wrong = change | {"currentPassword": "wrong"}
    response = await client.post("/api/v1/auth/password", json=wrong, headers=bearer(old["token"]))
    problem_of(response, 401, "INVALID_CREDENTIALS")
    short = change | {"newPassword": "short"}
    response = await client.post("/api/v1/auth/password", json=short, headers=bearer(old["token"]))
    assert "8 to" in problem_of(response, 422, "INVALID_REQUEST")["detail"]
    response = await client.post("/api/v1/auth/password", json=change, headers=bearer(old["token"]))
    assert response.status_code == 200
    problem_of(await client.get("/api/v1/auth/me", headers=bearer(old["token"])), 401, "UNAUTHORIZED")
    assert (await client.get("/api/v1/auth/me", headers=bearer(response.json()["token"]))).status_code == 200


async def test_a_key_says_what_it_covers(client: httpx.AsyncClient, ada: User) -> None:
    login = await log_in(client)
    key = (await client.post("/api/v1/keys", headers=bearer(login["token"]), json={"name": "farm"})).json()
    me = (await client.get("/api/v1/auth/me", headers=bearer(key["key"]))).json()
    assert (me["username"], me["scopes"], me["expiresAt"], me["keyId"]) == (
        "Ada",
        ["report"],
        None,
        key["keyId"],
    )
    response = await client.post(
        "/api/v1/auth/password",
        headers=bearer(key["key"]),
        json={"currentPassword": PASSWORD, "newPassword": "a better password"},
    )
    problem_of(response, 403, "FORBIDDEN")


@pytest.mark.parametrize("path", ["me", "password"])
async def test_nothing_without_a_token(client: httpx.AsyncClient, path: str) -> None:
    for token in ("", "x", "tw_x", "a.b.c"):
        method = "GET" if path == "me" else "POST"
        response = await client.request(method, f"/api/v1/auth/{path}", headers=bearer(token))
        problem_of(response, 401, "UNAUTHORIZED")
