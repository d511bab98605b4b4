"""Health, metrics and figures: ``/healthz``, ``/readyz``, ``/metrics``, ``/api/v1/stats``."""

import asyncio

from fastapi import APIRouter, Request, Response

from taskwire import __version__
from taskwire.api.common import Reader, json_response, services
from taskwire.api.models import problems
from taskwire.core.errors import TaskwireError

router = APIRouter(tags=["system"])


@router.get("/", summary="What is this?", include_in_schema=False)
async def index() -> Response:
    return json_response(
        {
            "name": "Taskwire",
            "version": __version__,
            "openapi": "/api/v1/openapi.json",
            "ready": "/readyz",
            "metrics": "/metrics",
            "websocket": "/ws",
        }
    )


@router.get("/ws", include_in_schema=False)
@router.get("/ws/tasks", include_in_schema=False)
async def not_upgraded() -> Response:
    raise TaskwireError("UPGRADE_REQUIRED")


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Response:
    return json_response({"status": "ok"})


@router.get(
    "/readyz",
    summary="Can it serve?",
    description="200 when database and broker answer and the node is not shutting down, else 503 with the reason.",
    responses=problems("UNAVAILABLE"),
)
async def readyz(request: Request) -> Response:
    runtime = request.app.state.runtime
    if not runtime.ready or runtime.draining:
        return json_response({"status": "draining" if runtime.draining else "starting"}, 503)
    checks: dict[str, str] = {}
    for name, part in (("database", services(request).database), ("broker", services(request).broker)):
        try:
            async with asyncio.timeout(5):
                await part.ping()
            checks[name] = "ok"
        except (TaskwireError, TimeoutError):
            checks[name] = "unavailable"
    ok = all(state == "ok" for state in checks.values())
    return json_response({"status": "ready" if ok else "unavailable", "checks": checks}, 200 if ok else 503)


@router.get("/metrics", summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    shown = request.app.state.metrics
    return Response(shown.text(), media_type=shown.content_type)


@router.get("/api/v1/stats", summary="Figures for people", responses=problems("UNAUTHORIZED"))
async def stats(request: Request, principal: Reader) -> Response:
    figures: dict[str, object] = request.app.state.metrics.figures()
    return json_response(figures | {"tasks": await services(request).tasks.counts(principal)})
