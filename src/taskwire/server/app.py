"""The HTTP application: thin routes over the services, errors as problem+json, a request id on every answer."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from fastapi import FastAPI, Request

from taskwire import __version__
from taskwire.api import accounts, auth, files, reports, system, tasks
from taskwire.api.problems import add_problem_handlers, problem
from taskwire.core.errors import TaskwireError
from taskwire.server.metrics import Metrics
from taskwire.server.runtime import Runtime

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Edge:
    """The outermost layer: gives every request an id, refuses bodies over the limit while they arrive."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        header = (b"x-request-id", request_id.encode())
        taken = 0

        async def counted() -> dict[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_body:
                raise TaskwireError("MESSAGE_TOO_LARGE", f"Wanted a body of at most {self._max_body} bytes.")
            return message

        async def tagged(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        try:
            length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
            if length.isdigit() and int(length) > self._max_body:
                error = TaskwireError(
                    "MESSAGE_TOO_LARGE", f"Wanted a body of at most {self._max_body} bytes."
                )
                await problem(error, Request(scope))(scope, receive, tagged)
                return
            await self._app(scope, counted, tagged)
        finally:
            structlog.contextvars.unbind_contextvars("request_id")


def create_app(runtime: Runtime) -> FastAPI:
    """The application of a node; its services are at ``app.state.services``."""
    app = FastAPI(
        title="Taskwire",
        version=__version__,
        description="Long-running media work, carried live to its end.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # the stock pages load scripts from other people's servers
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = runtime.services
    app.state.runtime = runtime
    app.state.metrics = Metrics(runtime)
    add_problem_handlers(app)
    for router in (auth.router, accounts.router, tasks.router, reports.router, system.router, files.router):
        app.include_router(router)
    app.add_middleware(Edge, max_body=runtime.settings.max_body)
    return app
