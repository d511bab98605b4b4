"""Errors as problem+json: every kind of them, readable, and without our inside."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs

from taskwire.api.common import InputModel
from taskwire.api.problems import MAX_ERRORS, readable_errors
from taskwire.core.errors import ERRORS, InvalidRequest, NotFound, TaskwireError, Unavailable
from tests.support.api import client_of, make_app, problem_of

pytestmark = pytest.mark.anyio


class Step(InputModel):
    total_steps: int


class Body(InputModel):
    name: str
    steps: list[Step] = []  # noqa: RUF012 - Pydantic copies it
    extra: dict[str, Any] = {}  # noqa: RUF012


def build() -> FastAPI:
    app = make_app()

    @app.get("/error/{code}")
    async def error(code: str) -> None:
        raise TaskwireError(code, details={"a": 1}, retry_after=1.2)

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("the password is hunter2")

    @app.get("/halfway")
    async def halfway() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError("too late")

        return StreamingResponse(parts())

    @app.get("/status/{status}")
    async def status(status: int) -> None:
        raise HTTPException(status, "teapots only", headers={"X-Kept": "yes"})

    @app.get("/gone")
    async def gone() -> None:
        raise ClientDisconnect

    @app.post("/body")
    async def body(body: Body) -> Response:
        return Response(status_code=204)

    @app.get("/query")
    async def query(limit: int) -> None: ...

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(build()) as made:
        yield made


@pytest.mark.parametrize("code", sorted(ERRORS))
async def test_every_code_of_the_table(client: httpx.AsyncClient, code: str) -> None:
    kind = ERRORS[code]
    response = await client.get(f"/error/{code}")
    body = problem_of(response, kind.status, code)
    assert body["type"] == "about:blank"
    assert body["detail"] == kind.text
    assert body["retryable"] is kind.retry
    assert body["details"] == {"a": 1}
    assert response.headers["retry-after"] == "2"
    assert ("www-authenticate" in response.headers) == (kind.status == 401)


async def test_an_unexpected_error_tells_nothing_and_is_logged_once(client: httpx.AsyncClient) -> None:
    with capture_logs() as lines:
        response = await client.get("/boom")
    body = problem_of(response, 500, "INTERNAL_ERROR")
    assert "hunter2" not in response.text
    assert body["retryable"] is True
    assert [(line["event"], line["log_level"], line["path"]) for line in lines] == [
        ("request.failed", "error", "/boom")
    ]
    assert lines[0]["exc_info"]


async def test_half_an_answer_does_not_pass_for_a_whole_one(client: httpx.AsyncClient) -> None:
    with capture_logs() as lines, pytest.raises(RuntimeError, match="too late"):
        await client.get("/halfway")
    assert [line["event"] for line in lines] == ["request.failed"]


async def test_a_client_that_left_is_no_error() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/gone",
        "headers": [],
        "query_string": b"",
        "raw_path": b"/gone",
    }
    with capture_logs() as lines:
        await build()(scope, receive, send)
    assert (lines, sent) == ([], [])


async def test_an_error_raised_while_the_body_is_read() -> None:
    """As by the limit on the size of a body, which is outside of the routes."""
    app = build()

    async def limited(scope: Any, receive: Any, send: Any) -> None:
        async def cut() -> Any:
            raise TaskwireError("MESSAGE_TOO_LARGE", "Wanted at most 5 bytes.")

        await app(scope, cut, send)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=limited), base_url="http://x.test"
    ) as client:
        body = problem_of(await client.post("/body", content=b"{}"), 413, "MESSAGE_TOO_LARGE")
    assert body["detail"] == "Wanted at most 5 bytes."


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_REQUEST"),
        (401, "UNAUTHORIZED"),
        (403, "FORBIDDEN"),
        (404, "NOT_FOUND"),
        (405, "METHOD_NOT_ALLOWED"),
        (413, "MESSAGE_TOO_LARGE"),
        (415, "INVALID_REQUEST"),
        (418, "INVALID_REQUEST"),
        (429, "RATE_LIMITED"),
        (499, "INVALID_REQUEST"),
        (500, "INTERNAL_ERROR"),
        (503, "UNAVAILABLE"),
    ],
)
async def test_what_the_framework_refuses_keeps_its_status(
    client: httpx.AsyncClient, status: int, code: str
) -> None:
    response = await client.get(f"/status/{status}")
    body = problem_of(response, status, code)
    assert response.headers["x-kept"] == "yes"
    assert body["detail"] == ("teapots only" if status < 500 else ERRORS[code].text)


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    body = problem_of(await client.get("/nowhere"), 404, "NOT_FOUND")
    assert (body["title"], body["detail"]) == ("Not Found", ERRORS["NOT_FOUND"].text)
    response = await client.delete("/body")
    problem_of(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("content", "path", "message"),
    [
        (b'{"name": 5}', "body.name", "string"),
        (b"{}", "body.name", "required"),
        (b'{"name": "x", "nam": 1}', "body.nam", "not permitted"),
        (
            b'{"name": "x", "steps": [{"totalSteps": 1}, {"totalSteps": "y"}]}',
            "body.steps[1].totalSteps",
            "integer",
        ),
        (b"{", "body", "wanted JSON"),
        (b"[]", "body", "object"),
        (b"", "body", "required"),
        (b'{"name": "a\\u0000b"}', "body", "`name`: wanted text without NUL characters"),
        (b'{"name": "\\ud800"}', "body", "Unicode"),
        (
            b'{"name": "x", "extra": {"a": [{"b\\u0000": 1}]}}',
            "body",
            "`extra`: wanted text without NUL characters",
        ),
    ],
)
async def test_invalid_bodies_say_where_and_what(
    client: httpx.AsyncClient, content: bytes, path: str, message: str
) -> None:
    response = await client.post("/body", content=content, headers={"Content-Type": "application/json"})
    body = problem_of(response, 422, "INVALID_REQUEST")
    assert [error["path"] for error in body["errors"]][:1] in ([path], [f"{path}.name"])
    assert message.lower() in body["errors"][0]["message"].lower()
    assert message.lower() in body["detail"].lower()


async def test_a_wrong_query(client: httpx.AsyncClient) -> None:
    body = problem_of(await client.get("/query", params={"limit": "x"}), 422, "INVALID_REQUEST")
    assert body["errors"][0]["path"] == "query.limit"


async def test_a_thousand_errors_are_not_all_listed(client: httpx.AsyncClient) -> None:
    steps = [{"totalSteps": "x"}] * 1000
    body = problem_of(await client.post("/body", json={"name": "x", "steps": steps}), 422, "INVALID_REQUEST")
    assert len(body["errors"]) == MAX_ERRORS


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": NaN}',
        b'{"\\ud800": 1, "name": "x"}',
        b'{"' + b"x" * 100_000 + b'": 1}',
        b'{"name": "x", "extra": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    ],
    ids=["utf-8", "deep", "number", "nan", "surrogate", "long", "nested"],
)
async def test_hostile_bodies_are_refused_or_taken_and_nothing_breaks(
    client: httpx.AsyncClient, content: bytes
) -> None:
    with capture_logs() as lines:
        response = await client.post("/body", content=content, headers={"Content-Type": "application/json"})
    assert lines == []
    if response.status_code != 204:
        problem_of(response, response.status_code, "INVALID_REQUEST")
        assert response.status_code in (400, 422)
        assert len(response.content) < 5000


async def test_who_sent_a_token_is_told_that_it_was_wrong() -> None:
    app = make_app()

    @app.get("/{code}")
    async def refuse(code: str) -> None:
        raise TaskwireError(code)

    async with client_of(app) as client:
        token = {"Authorization": "Bearer x"}
        assert (await client.get("/UNAUTHORIZED")).headers["www-authenticate"] == "Bearer"
        for code, header in (
            ("UNAUTHORIZED", 'Bearer error="invalid_token"'),
            ("TOKEN_EXPIRED", 'Bearer error="invalid_token"'),
            ("INVALID_CREDENTIALS", "Bearer"),
        ):
            assert (await client.get(f"/{code}", headers=token)).headers["www-authenticate"] == header


async def test_the_other_errors_of_the_tree() -> None:
    app = make_app()
    errors = {"a": InvalidRequest("no"), "b": NotFound(), "c": Unavailable()}

    @app.get("/{name}")
    async def fail(name: str) -> None:
        raise errors[name]

    async with client_of(app) as client:
        problem_of(await client.get("/a"), 422, "INVALID_REQUEST")
        problem_of(await client.get("/b"), 404, "NOT_FOUND")
        assert (await client.get("/c")).headers["retry-after"] == "1"


@given(st.lists(st.text() | st.integers(0, 99), max_size=5), st.text())
def test_errors_are_readable_whatever_is_in_them(location: list[str | int], message: str) -> None:
    found = readable_errors([{"loc": tuple(location), "msg": message, "type": "x"}])
    found[0]["path"].encode()
    found[0]["message"].encode()
    assert len(found[0]["path"]) <= 301
