"""Tasks as rows and back: the JSON forms in which entities are stored and travel between nodes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskwire.core.events import Event, Urgency
from taskwire.core.tasks import Task, TaskError, TaskResult, TaskSpec, TaskState, TaskStatus, normal_number

TASK_COLUMNS: Final = (
    "id", "owner_id", "team_id", "provider", "title", "description", "prompt", "options", "metadata", "created_at",
    "queued_at", "updated_at", "revision", "attempt", "status", "progress", "current_step", "total_steps", "message",
    "eta", "started_at", "finished_at", "result", "error",
)  # fmt: skip
"""The columns of a task in the order in which ``task_from_row`` takes them."""


def result_to_json(result: TaskResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {
        "videoUrl": result.video_url,
        "thumbnailUrl": result.thumbnail_url,
        "duration": result.duration,
        "fileSize": result.file_size,
        "resolution": result.resolution,
        **({"extra": dict(result.extra)} if result.extra else {}),
    }


def result_from_json(value: Mapping[str, Any] | None) -> TaskResult | None:
    if value is None:
        return None
    return TaskResult(
        video_url=value.get("videoUrl", ""),
        thumbnail_url=value.get("thumbnailUrl", ""),
        duration=value.get("duration", 0),
        file_size=value.get("fileSize", 0),
        resolution=value.get("resolution", ""),
        extra=value.get("extra", {}),
    )


def error_to_json(error: TaskError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "retryable": error.retryable,
    }


def error_from_json(value: Mapping[str, Any] | None) -> TaskError | None:
    if value is None:
        return None
    return TaskError(value["code"], value["message"], value.get("details"), bool(value.get("retryable")))


def progress_to_row(task: Task) -> list[Any]:
    """Id and what progress changes, in the order of the ``task_progress`` statement."""
    s = task.state
    return [
        task.spec.id, s.updated_at, s.revision, s.progress, s.current_step, s.total_steps, s.message, s.eta
    ]  # fmt: skip


def state_to_row(task: Task) -> list[Any]:
    """Id and state, in the order of the ``task_update`` statement."""
    s = task.state
    return [
        task.spec.id, s.queued_at, s.updated_at, s.revision, s.attempt, s.status, s.progress, s.current_step,
        s.total_steps, s.message, s.eta, s.started_at, s.finished_at,
        None if s.result is None else result_to_json(s.result), None if s.error is None else error_to_json(s.error),
    ]  # fmt: skip


def task_to_columns(task: Task) -> dict[str, Any]:
    """Every column of a new row."""
    spec, s = task.spec, task.state
    return {
        "id": spec.id, "owner_id": spec.owner_id, "team_id": spec.team_id, "provider": spec.provider,
        "title": spec.title, "description": spec.description, "prompt": spec.prompt, "options": dict(spec.options),
        "metadata": dict(spec.metadata), "created_at": spec.created_at, "queued_at": s.queued_at,
        "updated_at": s.updated_at, "revision": s.revision, "attempt": s.attempt, "status": s.status.value,
        "progress": s.progress, "current_step": s.current_step, "total_steps": s.total_steps, "message": s.message,
        "eta": s.eta, "started_at": s.started_at, "finished_at": s.finished_at, "result": result_to_json(s.result),
        "error": error_to_json(s.error),
    }  # fmt: skip


def task_from_row(row: Sequence[Any]) -> Task:
    """A task from its columns in the order of the ``task_load`` statement."""
    spec = TaskSpec(
        id=row[0], owner_id=row[1], team_id=row[2], provider=row[3], title=row[4], description=row[5], prompt=row[6],
        options=row[7], metadata=row[8], created_at=row[9],
    )  # fmt: skip
    state = TaskState(
        queued_at=row[10], updated_at=row[11], revision=row[12], attempt=row[13], status=TaskStatus(row[14]),
        progress=normal_number(row[15]), current_step=row[16], total_steps=row[17], message=row[18],
        eta=None if row[19] is None else normal_number(row[19]), started_at=row[20], finished_at=row[21],
        result=result_from_json(row[22]), error=error_from_json(row[23]),
    )  # fmt: skip
    return Task(spec, state)


def event_to_json(event: Event) -> dict[str, Any]:
    """An event of a task as nodes tell it to each other."""
    task: Task = event.entity
    columns = task_to_columns(task)
    return {
        "topic": event.topic,
        "urgency": int(event.urgency),
        "owner": event.owner_id,
        "rooms": event.rooms,
        "task": [columns[name] for name in TASK_COLUMNS],
    }


def event_from_json(value: Any) -> Event:
    """The event of ``event_to_json``. Raises ValueError for anything else."""
    try:
        task = task_from_row(value["task"])
        return Event(
            str(value["topic"]), task.state.revision, Urgency(value["urgency"]), task, str(value["owner"]),
            tuple(map(str, value["rooms"])),
        )  # fmt: skip
    except (AttributeError, LookupError, TypeError, OverflowError) as error:
        raise ValueError("wanted an event as event_to_json makes it") from error
