"""The HTTP application: thin routes over the services, errors as problem+json, a request id on every answer."""

import secrets
from typing import Final

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskwire import __version__
from taskwire.api import accounts, auth, files, reports, system, tasks
from taskwire.api.problems import add_problem_handlers, problem
from taskwire.core.errors import TaskwireError
from taskwire.logs import bind_request
from taskwire.server.metrics import Metrics
from taskwire.server.runtime import Runtime

_LOOPBACK: Final = r"https?://(localhost|([a-z0-9-]+\.)*localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?"


class Edge:
    """The outermost layer: gives every request an id, refuses bodies over the limit while they arrive."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        header = (b"x-request-id", request_id.encode())
        wanted = f"Wanted a body of at most {self._max_body} bytes."
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_body:
                raise HTTPException(
                    413, wanted
                )  # the one exception that the routes let pass while reading a body
            return message

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        with bind_request(request_id):
            length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
            if length.isdigit() and int(length) > self._max_body:
                answer = problem(TaskwireError("MESSAGE_TOO_LARGE", wanted), Request(scope))
                await answer(scope, receive, tagged)
            else:
                await self._app(scope, counted, tagged)


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
    # Routes are tried in order; those that producers call all the time come first.
    for router in (reports.router, tasks.router, auth.router, accounts.router, system.router, files.router):
        app.include_router(router)
    origins = runtime.settings.origins
    app.add_middleware(
        CORSMiddleware,
        # The same pages may call REST that may open a WebSocket (server.origins).
        allow_origins=list(origins),
        allow_origin_regex=None if origins else _LOOPBACK,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        expose_headers=["X-Request-Id", "Location", "Retry-After", "Idempotency-Replayed"],
        max_age=600,
    )
    app.add_middleware(Edge, max_body=runtime.settings.max_body)
    return app
