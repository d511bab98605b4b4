"""``/api/v1/users``, ``/teams`` and ``/keys`` over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from taskwire.api import accounts as account_routes
from taskwire.api import auth
from taskwire.api.common import iso
from taskwire.services.accounts import AccountService
from taskwire.store.accounts import Accounts, User
from tests.support.accounts import PASSWORD, Clock, make_service, make_settings, open_database
from tests.support.api import client_of, make_app, problem_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def service(tmp_path: Path, clock: Clock) -> AsyncIterator[AccountService]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'taskwire.db'}") as database:
        made = make_service(Accounts(database), clock)
        yield made
        await made.close()


@pytest.fixture
def app(service: AccountService) -> FastAPI:
    return make_app(
        [auth.router, account_routes.router], accounts=service, settings=make_settings(max_page=3)
    )


@pytest.fixture
async def root(service: AccountService) -> User:
    return await service.create_user("root", PASSWORD, is_admin=True)


@pytest.fixture
async def ada(service: AccountService, root: User) -> User:
    return await service.create_user("Ada", PASSWORD)


async def as_user(client: httpx.AsyncClient, service: AccountService, user: User) -> httpx.AsyncClient:
    client.headers["Authorization"] = f"Bearer {(await service.issue_token(user.id))[0]}"
    return client


@pytest.fixture
async def admin(app: FastAPI, service: AccountService, root: User) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield await as_user(client, service, root)


@pytest.fixture
async def member(app: FastAPI, service: AccountService, ada: User) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield await as_user(client, service, ada)


async def pages(client: httpx.AsyncClient, path: str, **query: Any) -> list[Any]:
    """Every item of a list, page by page."""
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        response = await client.get(path, params={**query, **cursor})
        assert response.status_code == 200, response.text
        body = response.json()
        found += body["items"]
        if body["nextCursor"] is None:
            return found
        cursor = {"cursor": body["nextCursor"]}


# Users


async def test_users(admin: httpx.AsyncClient, root: User, clock: Clock) -> None:
    response = await admin.post("/api/v1/users", json={"username": "Ada", "password": PASSWORD})
    assert response.status_code == 201
    ada = response.json()
    assert ada == {
        "userId": ada["userId"],
        "username": "Ada",
        "isAdmin": False,
        "disabled": False,
        "issuer": None,
        "createdAt": iso(clock()),
    }
    path = f"/api/v1/users/{ada['userId']}"
    assert (await admin.patch(path, json={"isAdmin": True})).json() == ada | {"isAdmin": True}
    assert (await admin.patch(path, json={"disabled": True, "isAdmin": False})).json() == ada | {
        "disabled": True
    }
    assert (await admin.patch(path, json={})).json() == ada | {"disabled": True}
    assert {user["username"] for user in await pages(admin, "/api/v1/users")} == {"root", "Ada"}
    assert (await admin.delete(path)).status_code == 204
    problem_of(await admin.delete(path), 404, "NOT_FOUND")
    problem_of(await admin.patch(path, json={"disabled": False}), 404, "NOT_FOUND")


async def test_users_come_in_pages(admin: httpx.AsyncClient, service: AccountService) -> None:
    for number in range(6):
        await service.create_user(f"user{number}", PASSWORD)
    body = (await admin.get("/api/v1/users", params={"limit": 1000})).json()
    assert len(body["items"]) == 3
    assert body["nextCursor"] == body["items"][-1]["userId"]
    assert len({user["userId"] for user in await pages(admin, "/api/v1/users", limit=2)}) == 7
    for query in ({"limit": 0}, {"cursor": "a b"}, {"cursor": ""}, {"cursor": "\0"}):
        problem_of(await admin.get("/api/v1/users", params=query), 422, "INVALID_REQUEST")


async def test_a_password_set_by_an_admin(admin: httpx.AsyncClient, app: FastAPI, ada: User) -> None:
    response = await admin.patch(f"/api/v1/users/{ada.id}", json={"password": "a better password"})
    assert response.status_code == 200
    assert "password" not in response.text
    async with client_of(app) as client:
        who = {"username": "ada", "password": "a better password"}
        assert (await client.post("/api/v1/auth/login", json=who)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"username": "ADA", "password": PASSWORD}, 409, "ALREADY_EXISTS"),
        ({"username": "Bob", "password": "short"}, 422, "INVALID_REQUEST"),
        ({"username": "Bob"}, 422, "INVALID_REQUEST"),
        ({"username": " ", "password": PASSWORD}, 422, "INVALID_REQUEST"),
        ({"username": "a\nb", "password": PASSWORD}, 422, "INVALID_REQUEST"),
        ({"username": "a\0b", "password": PASSWORD}, 422, "INVALID_REQUEST"),
        ({"username": "x" * 129, "password": PASSWORD}, 422, "INVALID_REQUEST"),
        ({"username": "Bob", "password": PASSWORD, "admin": True}, 422, "INVALID_REQUEST"),
    ],
)
async def test_users_that_cannot_be_made(
    admin: httpx.AsyncClient, ada: User, body: dict[str, Any], status: int, code: str
) -> None:
    problem_of(await admin.post("/api/v1/users", json=body), status, code)
    assert len(await pages(admin, "/api/v1/users")) == 2


async def test_the_last_administrator_stays(admin: httpx.AsyncClient, root: User) -> None:
    path = f"/api/v1/users/{root.id}"
    problem_of(await admin.delete(path), 409, "CONFLICT")
    problem_of(await admin.patch(path, json={"disabled": True}), 409, "CONFLICT")
    problem_of(await admin.patch(path, json={"isAdmin": False}), 409, "CONFLICT")


# Teams


async def test_teams(
    admin: httpx.AsyncClient, member: httpx.AsyncClient, root: User, ada: User, clock: Clock
) -> None:
    red = (await admin.post("/api/v1/teams", json={"name": "Red"})).json()
    assert red == {"teamId": red["teamId"], "name": "Red", "createdAt": iso(clock())}
    path = f"/api/v1/teams/{red['teamId']}"
    assert await pages(member, "/api/v1/teams") == []
    problem_of(await member.get(f"{path}/members"), 404, "NOT_FOUND")
    for _ in range(2):
        assert (await admin.put(f"{path}/members/{ada.id}")).status_code == 204
    assert await pages(member, "/api/v1/teams") == [red]
    assert await pages(member, f"{path}/members") == [
        {"userId": ada.id, "username": "Ada", "createdAt": iso(clock())}
    ]
    assert (await admin.patch(path, json={"name": "Crimson"})).json() == red | {"name": "Crimson"}
    assert (await admin.delete(f"{path}/members/{ada.id}")).status_code == 204
    problem_of(await admin.delete(f"{path}/members/{ada.id}"), 404, "NOT_FOUND")
    problem_of(await member.get(f"{path}/members"), 404, "NOT_FOUND")
    assert (await admin.delete(path)).status_code == 204
    problem_of(await admin.delete(path), 404, "NOT_FOUND")


async def test_teams_that_cannot_be_made(admin: httpx.AsyncClient) -> None:
    await admin.post("/api/v1/teams", json={"name": "Red"})
    problem_of(await admin.post("/api/v1/teams", json={"name": "Red"}), 409, "ALREADY_EXISTS")
    for body in ({}, {"name": ""}, {"name": "\0"}, {"name": "x" * 129}, {"name": "Blue", "id": "team_1"}):
        problem_of(await admin.post("/api/v1/teams", json=body), 422, "INVALID_REQUEST")


async def test_members_come_in_pages(admin: httpx.AsyncClient, service: AccountService) -> None:
    team = await service.create_team("Red")
    for number in range(5):
        await service.add_member(team.id, (await service.create_user(f"user{number}", PASSWORD)).id)
        await service.create_team(f"Team {number}")
    assert (
        len({found["userId"] for found in await pages(admin, f"/api/v1/teams/{team.id}/members", limit=2)})
        == 5
    )
    assert len({found["teamId"] for found in await pages(admin, "/api/v1/teams", limit=2)}) == 6


@pytest.mark.parametrize("unknown", ["x", "%00", "a%20b", "%F0%9F%98%80", "x" * 500])
async def test_unknown_ids(
    admin: httpx.AsyncClient, root: User, service: AccountService, unknown: str
) -> None:
    team = await service.create_team("Red")
    for method, path in (
        ("PATCH", f"/api/v1/users/{unknown}"),
        ("DELETE", f"/api/v1/users/{unknown}"),
        ("PATCH", f"/api/v1/teams/{unknown}"),
        ("DELETE", f"/api/v1/teams/{unknown}"),
        ("GET", f"/api/v1/teams/{unknown}/members"),
        ("PUT", f"/api/v1/teams/{unknown}/members/{root.id}"),
        ("PUT", f"/api/v1/teams/{team.id}/members/{unknown}"),
        ("DELETE", f"/api/v1/teams/{team.id}/members/{unknown}"),
        ("DELETE", f"/api/v1/keys/{unknown}"),
    ):
        body = {"name": "x"} if "teams" in path else {"disabled": True}
        response = await admin.request(method, path, json=body if method == "PATCH" else None)
        problem_of(response, 404, "NOT_FOUND")


# API keys


async def test_keys(member: httpx.AsyncClient, app: FastAPI, ada: User, clock: Clock) -> None:
    wanted = {"name": "farm", "scopes": ["write", "read"], "expiresAt": iso(clock() + 60_000)}
    response = await member.post("/api/v1/keys", json=wanted)
    assert response.status_code == 201
    made = response.json()
    key = made.pop("key")
    assert made == {
        "keyId": made["keyId"],
        "userId": ada.id,
        "name": "farm",
        "scopes": ["read", "write"],
        "createdAt": iso(clock()),
        "expiresAt": wanted["expiresAt"],
        "revokedAt": None,
        "lastUsedAt": None,
    }
    assert await pages(member, "/api/v1/keys") == [made]
    async with client_of(app) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        assert (await client.get("/api/v1/keys")).status_code == 200
        problem_of(await client.post("/api/v1/keys", json={"name": "more"}), 403, "FORBIDDEN")
        assert (await client.delete(f"/api/v1/keys/{made['keyId']}")).status_code == 204
        problem_of(await client.get("/api/v1/keys"), 401, "UNAUTHORIZED")
    assert (await pages(member, "/api/v1/keys"))[0]["revokedAt"] == iso(clock())


async def test_keys_of_others(
    admin: httpx.AsyncClient, member: httpx.AsyncClient, root: User, ada: User
) -> None:
    made = (await admin.post("/api/v1/keys", json={"name": "farm", "userId": ada.id})).json()
    assert (made["userId"], made["scopes"]) == (ada.id, ["report"])
    assert [key["keyId"] for key in await pages(admin, "/api/v1/keys", userId=ada.id)] == [made["keyId"]]
    assert await pages(admin, "/api/v1/keys") == []
    own = (await admin.post("/api/v1/keys", json={"name": "mine"})).json()
    problem_of(await member.get("/api/v1/keys", params={"userId": root.id}), 403, "FORBIDDEN")
    problem_of(await member.post("/api/v1/keys", json={"name": "x", "userId": root.id}), 403, "FORBIDDEN")
    problem_of(await member.delete(f"/api/v1/keys/{own['keyId']}"), 404, "NOT_FOUND")
    assert (await admin.delete(f"/api/v1/keys/{made['keyId']}")).status_code == 204


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["all"]},
        {"name": "x", "scopes": "read"},
        {"name": "x", "expiresAt": "2020-01-01T00:00:00Z"},
        {"name": "x", "expiresAt": "2030-01-01T00:00:00"},
        {"name": "x", "expiresAt": "soon"},
        {"name": "x", "expiresAt": 1e300},
        {"name": "x\0"},
    ],
)
async def test_keys_that_cannot_be_made(member: httpx.AsyncClient, body: dict[str, Any]) -> None:
    problem_of(await member.post("/api/v1/keys", json=body), 422, "INVALID_REQUEST")


# Who may


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "users", None),
        ("POST", "users", {"username": "Bob", "password": PASSWORD}),
        ("PATCH", "users/{ada}", {"isAdmin": True}),
        ("DELETE", "users/{ada}", None),
        ("POST", "teams", {"name": "Blue"}),
        ("PATCH", "teams/{red}", {"name": "Blue"}),
        ("DELETE", "teams/{red}", None),
        ("PUT", "teams/{red}/members/{ada}", None),
        ("DELETE", "teams/{red}/members/{ada}", None),
    ],
)
async def test_what_only_administrators_may(
    service: AccountService,
    app: FastAPI,
    admin: httpx.AsyncClient,
    member: httpx.AsyncClient,
    ada: User,
    root: User,
    method: str,
    path: str,
    body: Any,
) -> None:
    team = await service.create_team("Red")
    await service.add_member(team.id, ada.id)
    url = "/api/v1/" + path.format(ada=ada.id, red=team.id)
    problem_of(await member.request(method, url, json=body), 403, "FORBIDDEN")
    scope = "write" if method == "GET" else "read"
    key = (await admin.post("/api/v1/keys", json={"name": "k", "scopes": [scope]})).json()["key"]
    async with client_of(app) as client:
        problem_of(await client.request(method, url, json=body), 401, "UNAUTHORIZED")
        client.headers["Authorization"] = f"Bearer {key}"
        problem_of(await client.request(method, url, json=body), 403, "FORBIDDEN")
    assert (await admin.request(method, url, json=body)).is_success


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "teams"), ("GET", "keys"), ("POST", "keys"), ("DELETE", "keys/x")]
)
async def test_a_key_that_only_reports_sees_nothing(
    app: FastAPI, member: httpx.AsyncClient, method: str, path: str
) -> None:
    key = (await member.post("/api/v1/keys", json={"name": "farm"})).json()["key"]
    async with client_of(app) as client:
        response = await client.request(
            method, f"/api/v1/{path}", headers={"Authorization": f"Bearer {key}"}, json={"name": "x"}
        )
        assert "scope" in problem_of(response, 403, "FORBIDDEN")["detail"]


# The OpenAPI document


def test_every_route_is_described_with_examples() -> None:
    document = make_app([auth.router, account_routes.router]).openapi()
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["tags"], where
            bodies = [operation.get("requestBody"), *operation["responses"].values()]
            for body in filter(None, bodies):
                for kind, content in body.get("content", {}).items():
                    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
                    if kind == "application/json" and name and not name.startswith("Page"):
                        assert schemas[name].get("examples"), f"{where}: {name}"
            errors = {status: found for status, found in operation["responses"].items() if status >= "400"}
            for status, found in errors.items():
                assert list(found["content"]) == ["application/problem+json"], f"{where}: {status}"


def test_examples_are_valid() -> None:
    models = [value for module in (auth, account_routes) for value in vars(module).values()]
    checked = 0
    for model in models:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        for example in model.model_json_schema().get("examples", ()):
            if model.__name__.endswith(("In", "Patch")):
                model.model_validate(example)
            else:
                fields = model.model_json_schema(mode="serialization")["properties"]
                assert set(example) == set(fields), model.__name__
            checked += 1
    assert checked >= 12
