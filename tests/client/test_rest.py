"""REST calls give the server's objects, and errors that say what is wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from taskwire.client.errors import BadAnswer, LoginRefused, Refused, Unreachable
from taskwire.client.rest import Rest
from tests.support.processes import free_port
from tests.support.server import ADMIN_PASSWORD, ServerProcess

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives the same bytes to every request; its address, and the requests."""
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def test_a_task_from_creation_to_retry(server: ServerProcess) -> None:
    async with Rest(server.url) as rest:
        assert (await rest.readiness())["status"] == "ready"
        login = await rest.login("admin", ADMIN_PASSWORD)
        renewed = await rest.refresh(login["refreshToken"])
        with pytest.raises(LoginRefused):
            await rest.refresh(login["refreshToken"])
    async with Rest(server.url, renewed["token"]) as rest:
        body = {"prompt": "x", "provider": "external"}
        task = await rest.create_task(body, idempotency_key="k")
        assert (await rest.create_task(body, idempotency_key="k"))["id"] == task["id"]
        assert (await rest.task(task["id"]))["status"] == "QUEUED"
        page = await rest.tasks(status=["QUEUED"], limit=1, cursor=None)
        assert [item["id"] for item in page["items"]] == [task["id"]]
        assert (await rest.cancel(task["id"]))["status"] == "CANCELLED"
        assert (await rest.retry(task["id"]))["attempt"] == 2


async def test_refusals(server: ServerProcess) -> None:
    async with Rest(server.url, server.login()) as rest:
        for odd in ("nope", "", "..", "a/b", "a?b#c", "%2e%2e", "ü\n", " "):
            with pytest.raises(Refused) as refused:
                await rest.task(odd)
            assert refused.value.status == 404, odd
        with pytest.raises(Refused) as refused:
            await rest.create_task({"prompt": "x", "provider": "nobody"})
        assert refused.value.code == "UNKNOWN_PROVIDER"
        assert "external" in refused.value.message
        assert not refused.value.retryable
    async with Rest(server.url, "bad") as rest:
        with pytest.raises(LoginRefused):
            await rest.tasks()
    async with Rest(server.url) as rest:
        with pytest.raises(LoginRefused):
            await rest.login("admin", "wrong password")


async def test_nobody_there() -> None:
    async with Rest(f"http://127.0.0.1:{free_port()}") as rest:
        with pytest.raises(Unreachable, match="Is the server running there"):
            await rest.readiness()


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", b"<html>", "text/html"),
        http("200 OK", b"[1]"),
        http("502 Bad Gateway", b"oops", "text/plain"),
    ],
)
async def test_somebody_else_there(answer: bytes) -> None:
    async with answering(answer) as (url, _), Rest(url, "jwt") as rest:
        with pytest.raises(BadAnswer):
            await rest.tasks()
        with pytest.raises(BadAnswer):
            await rest.readiness()


async def test_not_http_at_all() -> None:
    async with answering(b"220 mail ready\r\n") as (url, _), Rest(url, "jwt") as rest:
        with pytest.raises(Unreachable):
            await rest.tasks()


async def test_no_answer() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Rest(url, timeout=0.05) as rest:
            with pytest.raises(Unreachable, match="in time"):
                await rest.tasks()


async def test_the_token_goes_where_it_belongs() -> None:
    async def token() -> str:
        return "from-a-source"

    async with answering(http("200 OK", b"{}")) as (url, requests), Rest(url, token) as rest:
        await rest.tasks()
        await rest.login("a", "b")
        await rest.readiness()
    sent = [b"authorization: bearer from-a-source" in request.lower() for request in requests]
    assert sent == [True, False, False]


async def test_an_empty_answer() -> None:
    async with (
        answering(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as (url, _),
        Rest(url) as rest,
    ):
        await rest.logout("token")
        assert await rest.call("POST", "/x") == {}
