"""Progress reports by producers, one by one and in batches. Both answer after the commit."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from taskwire.api.common import caller, json_response, services
from taskwire.api.models import BatchedReportIn, ReportIn, inline_schema, json_size, problems
from taskwire.api.problems import readable_errors
from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.core.tasks import Report
from taskwire.services.tasks import Reported

router = APIRouter(prefix="/api/v1", tags=["reports"])

_batch = TypeAdapter(list[BatchedReportIn])
_one = TypeAdapter(BatchedReportIn)
_single = TypeAdapter(ReportIn)

_OUTCOME = {"revision": 12, "outcome": "applied", "status": "PROCESSING", "attempt": 1}
_REFUSED = {"error": {"code": "TASK_NOT_FOUND", "message": "There is no such task.", "retryable": False}}


def _outcome(reported: Reported) -> dict[str, Any]:
    return {
        "revision": reported.revision,
        "outcome": reported.verdict,
        "status": reported.status,
        "attempt": reported.attempt,
    }


def _refusal(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, TaskwireError):
        error = TaskwireError("INTERNAL_ERROR")
    return {"error": {"code": error.code, "message": error.message, "retryable": error.retryable}}


def _check(report: ReportIn, limit: int) -> None:
    result, error = report.result, report.error
    if result is not None and result.extra and json_size(result.extra) > limit:
        raise InvalidRequest(f"`result.extra`: wanted at most {limit} bytes of JSON")
    if error is not None and error.details is not None and json_size(error.details) > limit:
        raise InvalidRequest(f"`error.details`: wanted at most {limit} bytes of JSON")


def _body(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    """What OpenAPI says of a route that reads its body itself."""
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}, "security": [{"HTTPBearer": []}]}


@router.post(
    "/tasks/{task_id}/reports",
    summary="Report on a task",
    description="`outcome` tells what became of the report: `applied`, `unchanged`, `stale` (behind what is known), "
    "`finished` (the task has ended; nothing changes it) or `old-attempt`. None of these needs to be sent again.",
    openapi_extra=_body(
        inline_schema(ReportIn), {"progress": 40, "message": "Frame 48", "estimatedTimeRemaining": 3}
    ),
    responses={
        200: {"content": {"application/json": {"example": _OUTCOME}}},
        **problems("INVALID_REQUEST", "TASK_NOT_FOUND", "NOT_REPORTABLE", "UNAUTHORIZED", "UNAVAILABLE"),
    },
)
async def report_on_task(request: Request, task_id: str) -> Response:
    principal = await caller(request, "report")
    try:
        report = _single.validate_json(await request.body())
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**entry, "loc": ("body", *entry["loc"])} for entry in found]) from None
    _check(report, services(request).settings.max_metadata)
    return json_response(_outcome(await services(request).tasks.report(principal, task_id, report.to_core())))


@router.post(
    "/reports",
    summary="Report on many tasks",
    description="Takes the reports in their order, in one commit if they fit, and answers one outcome each, in the "
    "same order. A report that is refused has `error` in place of an outcome and does not hold up the others.",
    openapi_extra=_body(
        {
            "type": "object",
            "required": ["reports"],
            "additionalProperties": False,
            "properties": {"reports": {"type": "array", "items": inline_schema(BatchedReportIn)}},
        },
        {
            "reports": [
                {"taskId": "video_06gz9k2c5m8q4w7xj3t1nafrbe", "progress": 40, "message": "Frame 48"},
                {"taskId": "video_06gz9k2c5m8q4w7xj3t1nafrbf", "status": "COMPLETED"},
            ]
        },
    ),
    responses={
        200: {"content": {"application/json": {"example": {"outcomes": [_OUTCOME, _REFUSED]}}}},
        **problems("INVALID_REQUEST", "UNAUTHORIZED", "UNAVAILABLE"),
    },
)
async def report_on_tasks(request: Request) -> Response:
    principal = await caller(request, "report")
    settings = services(request).settings
    try:
        body = orjson.loads(await request.body())
    except ValueError:
        raise InvalidRequest("wanted a JSON object {reports: [...]}, but this is not JSON") from None
    reports = body.get("reports") if isinstance(body, dict) else None
    if not isinstance(reports, list) or set(body) != {"reports"}:
        raise InvalidRequest("wanted a JSON object {reports: [...]} and nothing beside it")
    if len(reports) > settings.max_reports:
        raise InvalidRequest(f"`reports`: wanted at most {settings.max_reports}, but got {len(reports)}")
    outcomes: list[dict[str, Any]] = [{}] * len(reports)
    taken: list[tuple[str, Report]] = []
    places: list[int] = []
    for place, report in enumerate(_validated(reports)):
        try:
            if isinstance(report, TaskwireError):
                raise report
            _check(report, settings.max_metadata)
        except TaskwireError as error:
            outcomes[place] = _refusal(error)
            continue
        taken.append((report.task_id, report.to_core()))
        places.append(place)
    for place, answer in zip(
        places, await services(request).tasks.report_many(principal, taken), strict=True
    ):
        outcomes[place] = _outcome(answer) if isinstance(answer, Reported) else _refusal(answer)
    return json_response({"outcomes": outcomes})


def _validated(reports: Sequence[Any]) -> Sequence[BatchedReportIn | TaskwireError]:
    """The reports as models. All at once, which is quick; one by one if any is wrong, so that the others go through."""
    try:
        return _batch.validate_python(reports)
    except ValidationError:
        found: list[BatchedReportIn | TaskwireError] = []
        for report in reports:
            try:
                found.append(_one.validate_python(report))
            except ValidationError as error:
                parts = "; ".join(
                    f"{entry['path']}: {entry['message']}" for entry in readable_errors(error.errors())
                )
                found.append(InvalidRequest(parts or "The report is not valid."))
        return found
