"""``/api/v1/tasks``: create, get, list, timeline, cancel, retry."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from taskwire.api.common import Reader, WriterPrincipal, iso, json_response, parse_time, services
from taskwire.api.models import TASK_EXAMPLE, JsonObject, TaskIn, json_size, problems, task_out
from taskwire.core.errors import InvalidRequest, NotFound
from taskwire.core.filters import TaskFilter
from taskwire.core.ids import is_id
from taskwire.core.tasks import Task, TaskStatus
from taskwire.services.tasks import TaskDraft

router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])

Status = Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"]
_TASK: dict[str, Any] = {"content": {"application/json": {"example": TASK_EXAMPLE}}}


def _out(request: Request, task: Task) -> dict[str, Any]:
    return task_out(task, services(request).absolute, services(request).clock())


@router.post(
    "",
    status_code=201,
    summary="Create a task",
    description="Hands a task to its provider. With an `Idempotency-Key` a repeated request gives the task of the "
    "first one, with `Idempotency-Replayed: true`.",
    responses={201: _TASK, **problems("INVALID_REQUEST", "UNKNOWN_PROVIDER", "RATE_LIMITED", "UNAUTHORIZED")},
)
async def create_task(
    request: Request,
    body: TaskIn,
    principal: WriterPrincipal,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    settings = services(request).settings
    if len(body.prompt) > settings.max_prompt:
        raise InvalidRequest(f"`prompt`: wanted at most {settings.max_prompt} characters")
    _check_size("metadata", body.metadata, settings.max_metadata)
    _check_size("options", body.options, settings.max_metadata)
    if body.team_id is not None and principal.is_admin and body.team_id not in principal.teams:
        try:
            await services(request).accounts.team(body.team_id)
        except NotFound:
            raise InvalidRequest("`teamId`: wanted the id of a team that exists") from None
    draft = TaskDraft(
        prompt=body.prompt,
        provider=body.provider,
        title=body.title,
        description=body.description,
        options=body.options,
        metadata=body.metadata,
        team_id=body.team_id,
    )
    task, new = await services(request).tasks.create(principal, draft, idempotency_key=idempotency_key)
    headers = {"Location": f"/api/v1/tasks/{task.id}"} | ({} if new else {"Idempotency-Replayed": "true"})
    return json_response(_out(request, task), 201, headers)


def _check_size(name: str, value: JsonObject, limit: int) -> None:
    if json_size(value) > limit:
        raise InvalidRequest(f"`{name}`: wanted at most {limit} bytes of JSON")


@router.get(
    "",
    summary="List tasks",
    description="The tasks you may see, newest first. `nextCursor` leads to the next page, null on the last one.",
    responses={
        200: {"content": {"application/json": {"example": {"items": [TASK_EXAMPLE], "nextCursor": None}}}},
        **problems("INVALID_REQUEST", "UNAUTHORIZED"),
    },
)
async def list_tasks(
    request: Request,
    principal: Reader,
    status: Annotated[list[Status] | None, Query(description="One or several.")] = None,
    provider: Annotated[list[str] | None, Query(max_length=20)] = None,
    owner_id: Annotated[str | None, Query(alias="ownerId", description="Admins: any user's.")] = None,
    team_id: Annotated[str | None, Query(alias="teamId")] = None,
    q: Annotated[str, Query(max_length=200, description="Text in title or prompt.")] = "",
    created_after: Annotated[str | None, Query(alias="createdAfter", description="ISO 8601.")] = None,
    created_before: Annotated[str | None, Query(alias="createdBefore", description="ISO 8601.")] = None,
    updated_after: Annotated[str | None, Query(alias="updatedAfter", description="ISO 8601.")] = None,
    cursor: Annotated[str | None, Query(description="`nextCursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1)] = 50,
) -> Response:
    if cursor is not None and not is_id(cursor):
        raise InvalidRequest("`cursor`: wanted the `nextCursor` of an earlier page")
    texts = [
        ("q", q),
        ("ownerId", owner_id),
        ("teamId", team_id),
        *(("provider", name) for name in provider or ()),
    ]
    for name, text in texts:
        if text is not None and "\x00" in text:
            raise InvalidRequest(f"`{name}`: wanted text without NUL characters")
    where = TaskFilter(
        owner_ids=None if owner_id is None else (owner_id,),
        team_ids=None if team_id is None else (team_id,),
        statuses=[TaskStatus(value) for value in status or ()],
        providers=provider or (),
        text=q,
        created_from=parse_time("createdAfter", created_after),
        created_to=parse_time("createdBefore", created_before),
        updated_from=parse_time("updatedAfter", updated_after),
    )
    limit = min(limit, services(request).settings.max_page)
    found = await services(request).tasks.list(principal, where, before=cursor, limit=limit + 1)
    items = [_out(request, task) for task in found[:limit]]
    return json_response({"items": items, "nextCursor": items[-1]["id"] if len(found) > limit else None})


@router.get(
    "/{task_id}", summary="Get a task", responses={200: _TASK, **problems("TASK_NOT_FOUND", "UNAUTHORIZED")}
)
async def get_task(request: Request, task_id: str, principal: Reader) -> Response:
    return json_response(_out(request, await services(request).tasks.get(principal, task_id)))


@router.get(
    "/{task_id}/events",
    summary="The timeline of a task",
    description="Its state changes, oldest first; progress is not among them.",
    responses=problems("TASK_NOT_FOUND", "UNAUTHORIZED"),
)
async def get_timeline(
    request: Request,
    task_id: str,
    principal: Reader,
    cursor: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
    limit: Annotated[int, Query(ge=1)] = 100,
) -> Response:

    limit = min(limit, services(request).settings.max_page)
    found = await services(request).tasks.timeline(principal, task_id, limit=limit + 1, after=cursor)
    items = [
        {
            "type": entry.type,
            "at": iso(entry.at),
            "revision": entry.revision,
            "attempt": entry.attempt,
            "actor": entry.actor,
            "data": entry.data,
        }
        for entry in found[:limit]
    ]
    return json_response(
        {"items": items, "nextCursor": str(found[limit - 1].seq) if len(found) > limit else None}
    )


@router.post(
    "/{task_id}/cancel",
    summary="Cancel a task",
    description="Ends the task as CANCELLED and stops its work. Cancelling twice is no error.",
    responses={200: _TASK, **problems("TASK_NOT_FOUND", "TASK_FINISHED", "UNAUTHORIZED")},
)
async def cancel_task(request: Request, task_id: str, principal: WriterPrincipal) -> Response:
    return json_response(_out(request, await services(request).tasks.cancel(principal, task_id)))


@router.post(
    "/{task_id}/retry",
    summary="Retry a task",
    description="Opens the next attempt of a failed or cancelled task, under the same id.",
    responses={
        200: _TASK,
        **problems("TASK_NOT_FOUND", "TASK_FINISHED", "TASK_NOT_FINISHED", "UNAUTHORIZED"),
    },
)
async def retry_task(request: Request, task_id: str, principal: WriterPrincipal) -> Response:
    return json_response(_out(request, await services(request).tasks.retry(principal, task_id)))
