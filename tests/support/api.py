"""The HTTP routes in this process: an application with the given routers, and a client for it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final

import httpx
from fastapi import APIRouter, FastAPI

from taskwire.api.problems import add_problem_handlers

BASE: Final = "http://taskwire.test"


def make_app(routers: Sequence[APIRouter] = (), **services: Any) -> FastAPI:
    """An application whose services are the given ones."""
    app = FastAPI(redirect_slashes=False)
    app.state.services = SimpleNamespace(**services)
    add_problem_handlers(app)
    for router in routers:
        app.include_router(router)
    return app


@asynccontextmanager
async def client_of(app: FastAPI, address: str = "192.0.2.1") -> AsyncIterator[httpx.AsyncClient]:
    """A client at ``address``; an exception that reaches the server is raised in the test."""
    transport = httpx.ASGITransport(app=app, client=(address, 50_000))
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of a problem, which must be a whole one with ``status`` and ``code``."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code", "retryable"} <= body.keys()
    assert (body["status"], body["code"]) == (status, code), body
    return body
