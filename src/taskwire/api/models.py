"""Tasks and reports as REST shows and takes them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, Field, JsonValue, StringConstraints, model_validator

from taskwire.api.common import InputModel, iso
from taskwire.core.codec import error_to_json
from taskwire.core.errors import ERRORS
from taskwire.core.tasks import Report, Task, TaskError, TaskResult, TaskStatus, metrics

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=0, le=1_000_000_000)]
SecondsLeft = Annotated[float, Field(ge=0, le=10 * 365 * 86400, allow_inf_nan=False)]
ShortText = Annotated[str, StringConstraints(max_length=500)]
LongText = Annotated[str, StringConstraints(max_length=10_000)]
Url = Annotated[str, StringConstraints(max_length=4096)]

_MAX_DEPTH = 20


def _bounded(value: Any) -> Any:
    """Refuse JSON nested so deep, or numbers so large, that a database or a client could not hold them."""

    def check(part: Any, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError(f"wanted JSON nested at most {_MAX_DEPTH} deep")
        if isinstance(part, Mapping):
            for key, inner in part.items():
                _no_nul(key)
                check(inner, depth + 1)
        elif isinstance(part, list):
            for inner in part:
                check(inner, depth + 1)
        elif isinstance(part, str):
            _no_nul(part)
        elif isinstance(part, int) and abs(part) >= 1 << 53:
            raise ValueError("wanted integers below 2^53; send larger ones as text")
        elif isinstance(part, float) and (part != part or abs(part) == float("inf")):
            raise ValueError("wanted finite numbers")

    check(value, 0)
    return value


def _no_nul(text: str) -> None:
    if "\x00" in text:
        raise ValueError("wanted text without NUL characters")


Json = Annotated[JsonValue, AfterValidator(_bounded)]
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_bounded)]


class TaskIn(InputModel):
    """What ``POST /api/v1/tasks`` takes."""

    prompt: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="What to make.", examples=["A lighthouse at dusk, slow zoom"]
    )
    provider: Annotated[str, StringConstraints(max_length=64)] = Field(
        "render", description="`render` (this server), or `external` (some producer reports)."
    )
    title: ShortText = ""
    description: LongText = ""
    options: JsonObject = Field(
        default_factory=dict,
        description="For `render`: `size` WIDTHxHEIGHT, `seconds`, `fps`.",
        examples=[{"size": "1280x720", "seconds": 5, "fps": 24}],
    )
    team_id: Annotated[str, StringConstraints(max_length=128)] | None = Field(
        None, description="A team of yours whose members may see the task."
    )
    metadata: JsonObject = Field(default_factory=dict, description="Anything of yours, given back unchanged.")


class ResultIn(InputModel):
    """What a task made. Unknown parts may be left out."""

    video_url: Url = ""
    thumbnail_url: Url = ""
    duration: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = Field(0, description="Seconds.")
    file_size: Annotated[int, Field(ge=0, lt=1 << 53)] = Field(0, description="Bytes.")
    resolution: Annotated[str, StringConstraints(max_length=32)] = Field("", examples=["1280x720"])
    extra: JsonObject = Field(default_factory=dict)

    def to_core(self) -> TaskResult:
        return TaskResult(
            self.video_url,
            self.thumbnail_url,
            _number(self.duration),
            self.file_size,
            self.resolution,
            self.extra,
        )


class ErrorIn(InputModel):
    """Why a task failed."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "TASK_FAILED"
    message: LongText = ""
    details: Json = None
    retryable: bool = False


class ReportIn(InputModel):
    """What a producer says of a task; whatever is left out stays as it is."""

    status: Literal["QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"] | None = None
    progress: Percent | None = Field(None, description="0 to 100; from the steps if only those are given.")
    current_step: Steps | None = None
    total_steps: Steps | None = None
    message: LongText | None = None
    estimated_time_remaining: SecondsLeft | None = Field(None, description="Seconds; estimated if left out.")
    result: ResultIn | None = None
    error: ErrorIn | None = None
    attempt: Annotated[int, Field(ge=1, lt=1 << 31)] | None = Field(
        None, description="The attempt that the report is of; the present one if left out."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ReportIn":
        if self.error is not None and self.status not in ("FAILED", "CANCELLED"):
            raise ValueError("`error` goes with status FAILED or CANCELLED")
        return self

    def to_core(self) -> Report:
        error = self.error
        return Report(
            None if self.status is None else TaskStatus(self.status),
            None if self.progress is None else _number(self.progress),
            self.current_step,
            self.total_steps,
            self.message,
            None if self.estimated_time_remaining is None else _number(self.estimated_time_remaining),
            None if self.result is None else self.result.to_core(),
            None if error is None else TaskError(error.code, error.message, error.details, error.retryable),
            self.attempt,
        )


class BatchedReportIn(ReportIn):
    """One report of a batch."""

    task_id: Annotated[str, StringConstraints(min_length=1, max_length=128)]


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else value


def task_out(task: Task, absolute: Callable[[str], str], now: int) -> dict[str, Any]:
    """A task as REST shows it; ``now`` in ms closes the metrics of an attempt that has not ended."""
    spec, state = task.spec, task.state
    result = state.result
    times = metrics(state, now)
    return {
        "id": spec.id,
        "status": state.status,
        "progress": state.progress,
        "currentStep": state.current_step,
        "totalSteps": state.total_steps,
        "message": state.message,
        "estimatedTimeRemaining": state.eta,
        "revision": state.revision,
        "attempt": state.attempt,
        "title": spec.title,
        "description": spec.description,
        "prompt": spec.prompt,
        "provider": spec.provider,
        "options": spec.options,
        "metadata": spec.metadata,
        "ownerId": spec.owner_id,
        "teamId": spec.team_id,
        "result": None
        if result is None
        else {
            "videoUrl": absolute(result.video_url),
            "thumbnailUrl": absolute(result.thumbnail_url),
            "duration": result.duration,
            "fileSize": result.file_size,
            "resolution": result.resolution,
            "extra": result.extra,
        },
        "error": error_to_json(state.error),
        "metrics": {
            "totalTime": times.total_time,
            "queueTime": times.queue_time,
            "processTime": times.process_time,
        },
        "createdAt": iso(spec.created_at),
        "updatedAt": iso(state.updated_at),
        "startedAt": None if state.started_at is None else iso(state.started_at),
        "finishedAt": None if state.finished_at is None else iso(state.finished_at),
    }


def json_size(value: Any) -> int:
    """Bytes of ``value`` as JSON."""
    return len(orjson.dumps(value))


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model, complete in itself, for routes that read their body themselves."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolve(definitions.get(part["$ref"].rsplit("/", 1)[-1], {}))
            return {key: resolve(value) for key, value in part.items()}
        return [resolve(entry) for entry in part] if isinstance(part, list) else part

    resolved: dict[str, Any] = resolve(schema)
    return resolved


TASK_EXAMPLE: dict[str, Any] = {
    "id": "video_06gz9k2c5m8q4w7xj3t1nafrbe",
    "status": "PROCESSING",
    "progress": 42,
    "currentStep": 50,
    "totalSteps": 120,
    "message": "Rendering frame 50 of 120",
    "estimatedTimeRemaining": 3.1,
    "revision": 9,
    "attempt": 1,
    "title": "Lighthouse",
    "description": "",
    "prompt": "A lighthouse at dusk, slow zoom",
    "provider": "render",
    "options": {"size": "1280x720", "seconds": 5, "fps": 24},
    "metadata": {},
    "ownerId": "user_06gz9k1w2e5r8t0y3v6b9n2m4s",
    "teamId": None,
    "result": None,
    "error": None,
    "metrics": {"totalTime": 2.4, "queueTime": 0.1, "processTime": 2.3},
    "createdAt": "2026-01-31T12:00:00.000Z",
    "updatedAt": "2026-01-31T12:00:02.400Z",
    "startedAt": "2026-01-31T12:00:00.100Z",
    "finishedAt": None,
}


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route for the error codes it may answer, from the error table."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = ERRORS[code]
        entry = found.setdefault(
            kind.status, {"description": "", "content": {"application/problem+json": {}}}
        )
        entry["description"] += f"`{code}`: {kind.text} "
    return found
