"""Times, models, pages, and who may do what."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from fastapi import Depends
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskwire.api.common import (
    AdminReader,
    AdminWriter,
    ApiModel,
    InputModel,
    PageDep,
    PageRequest,
    PrincipalDep,
    Reader,
    Time,
    WriterPrincipal,
    iso,
    json_response,
    parse_time,
    require,
    unstorable,
)
from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.core.principals import Principal
from tests.support.accounts import make_settings
from tests.support.api import client_of, make_app, problem_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_769_860_800_000, "2026-01-31T12:00:00.000Z"),
        (1_769_860_800_999, "2026-01-31T12:00:00.999Z"),
    ],
)
def test_times(at: int, text: str) -> None:
    assert iso(at) == text
    assert parse_time("x", text) == at


@given(st.integers(0, 253_402_300_799_999))
def test_times_there_and_back(at: int) -> None:
    assert parse_time("x", iso(at)) == at


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (None, None),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.0019Z", 1),
        ("19700101T000000Z", 0),
    ],
)
def test_other_ways_to_write_a_time(text: str | None, at: int | None) -> None:
    assert parse_time("x", text) == at


@pytest.mark.parametrize(
    "text", ["", "now", "1970-01-01", "1970-01-01T00:00:00", "0", "\0", "1970-13-01T00:00:00Z"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidRequest, match="`createdAfter`: wanted a time such as"):
        parse_time("createdAfter", text)


class Out(ApiModel):
    user_id: str
    created_at: Time
    ended_at: Time | None = None


class In(InputModel):
    user_name: str
    inner: "In | None" = None
    things: list[Any] = []  # noqa: RUF012
    number: float = 0


def test_json_is_camel_case_and_times_are_text() -> None:
    assert Out(user_id="u", created_at=0).model_dump(mode="json", by_alias=True) == {
        "userId": "u",
        "createdAt": "1970-01-01T00:00:00.000Z",
        "endedAt": None,
    }
    assert Out.model_json_schema(mode="serialization")["properties"]["createdAt"]["format"] == "date-time"


def test_input_is_what_was_asked_for_and_nothing_else() -> None:
    assert In.model_validate({"userName": "a"}).user_name == "a"
    for wrong in ({"userName": "a", "more": 1}, {"userName": "a", "number": float("nan")}, {}):
        with pytest.raises(ValidationError):
            In.model_validate(wrong)


@pytest.mark.parametrize("bad", ["\0", "a\0b", "\ud800", "é\udfff"])
@pytest.mark.parametrize("place", ["field", "inner", "list", "key", "deep"])
def test_texts_that_cannot_be_stored_are_refused_anywhere(bad: str, place: str) -> None:
    deep: Any = bad
    for _ in range(5000):
        deep = [deep]
    body = {
        "field": {"userName": bad},
        "inner": {"userName": "a", "inner": {"userName": bad}},
        "list": {"userName": "a", "things": ["x", [bad]]},
        "key": {"userName": "a", "things": [{"x": {bad: 1}}]},
        "deep": {"userName": "a", "things": [deep]},
    }[place]
    with pytest.raises(ValidationError):
        In.model_validate(body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters() | st.sampled_from("\0\ud800é")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_what_is_storable_is_utf_8_without_nul(value: Any) -> None:
    as_json = json.dumps(value, ensure_ascii=False)
    try:
        as_json.encode()
        storable = "\\u0000" not in as_json.replace("\\\\", "")
    except UnicodeEncodeError:
        storable = False
    assert (unstorable(value) is None) == storable
    if storable:
        assert json.loads(bytes(json_response(value).body)) == value


def test_a_page_knows_whether_there_is_another() -> None:
    page = PageRequest(None, 3)
    assert page.fetch == 4
    assert page.cut([1, 2, 3, 4], str) == ([1, 2, 3], "3")
    assert page.cut([1, 2, 3], str) == ([1, 2, 3], None)
    assert page.cut([], str) == ([], None)


async def test_the_limit_of_a_page_has_a_limit() -> None:
    app = make_app(settings=make_settings(max_page=7))

    @app.get("/")
    async def page(page: PageDep) -> list[Any]:
        return [page.cursor, page.limit]

    async with client_of(app) as client:
        assert (await client.get("/")).json() == [None, 7]
        assert (await client.get("/", params={"limit": 5, "cursor": "x"})).json() == ["x", 5]
        assert (await client.get("/", params={"limit": 10**9})).json() == [None, 7]
        for limit in ("0", "-1", "x", "1.5", "9" * 5000):
            problem_of(await client.get("/", params={"limit": limit}), 422, "INVALID_REQUEST")


class Accounts:
    """Knows tokens that name their scopes, as in ``read,write:admin``."""

    async def authenticate(self, token: str) -> Principal:
        scopes, _, admin = token.partition(":")
        if not scopes.isascii():
            raise TaskwireError("UNAUTHORIZED")
        return Principal("user_1", "ada", is_admin=bool(admin), scopes=frozenset(scopes.split(",")))


@pytest.mark.parametrize(
    ("token", "allowed"),
    [
        ("read", ["any", "read"]),
        ("write", ["any", "report", "write"]),
        ("report", ["any", "report"]),
        ("read,write", ["any", "read", "report", "write"]),
        ("read:admin", ["admin-read", "any", "read"]),
        ("read,write:admin", ["admin-read", "admin-write", "any", "read", "report", "write"]),
    ],
)
async def test_who_may_do_what(token: str, allowed: Sequence[str]) -> None:
    app = make_app(accounts=Accounts())

    @app.get("/any")
    async def anybody(principal: PrincipalDep) -> None: ...

    @app.get("/read")
    async def read(principal: Reader) -> None: ...

    @app.get("/write")
    async def write(principal: WriterPrincipal) -> None: ...

    @app.get("/report")
    async def report(principal: Annotated[Principal, Depends(require("report"))]) -> None: ...

    @app.get("/admin-read")
    async def admin_read(principal: AdminReader) -> None: ...

    @app.get("/admin-write")
    async def admin_write(principal: AdminWriter) -> None: ...

    async with client_of(app) as client:
        for path in ("any", "read", "write", "report", "admin-read", "admin-write"):
            response = await client.get(f"/{path}", headers={"Authorization": f"Bearer {token}"})
            if path in allowed:
                assert response.status_code == 200
            else:
                problem_of(response, 403, "FORBIDDEN")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "read", b"Bearer \xff"])
async def test_without_a_token_nobody_is_anybody(header: str | bytes | None) -> None:
    app = make_app(accounts=Accounts())

    @app.get("/")
    async def who(principal: Annotated[Principal, Depends(require("read"))]) -> str:
        return principal.username

    async with client_of(app) as client:
        headers: dict[str, Any] = {} if header is None else {"Authorization": header}
        response = await client.get("/", headers=headers)
        problem_of(response, 401, "UNAUTHORIZED")
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert (await client.get("/", headers={"Authorization": "bearer read"})).json() == "ada"
