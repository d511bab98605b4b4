"""Tasks and their events for tests: what matters is said, the rest is filled in."""

from dataclasses import replace
from typing import Any, Final

from taskwire.core.events import Event, Urgency, task_channel, team_channel, user_channel
from taskwire.core.tasks import (
    COMPLETED,
    FAILED,
    PROCESSING,
    QUEUED,
    Task,
    TaskError,
    TaskResult,
    TaskSpec,
    TaskState,
    TaskStatus,
    new_task,
)

NOW: Final = 1_800_000_000_000
OWNER: Final = "user_owner"


def make_spec(id: str = "video_1", **changes: Any) -> TaskSpec:
    """What was asked for; an ``external`` task of ``OWNER``."""
    fields: dict[str, Any] = {
        "owner_id": OWNER, "provider": "external", "prompt": "A lighthouse at dusk", "created_at": NOW, **changes,
    }  # fmt: skip
    return TaskSpec(id, **fields)


def make_task(id: str = "video_1", *, spec: dict[str, Any] | None = None, **state: Any) -> Task:
    """A task in the state that the keywords name; the times of a started or finished one are filled in."""
    task = new_task(make_spec(id, **(spec or {})))
    status = state.get("status", QUEUED)
    filled: dict[str, Any] = {}
    if status is not QUEUED:
        filled["started_at"] = NOW + 1_000
        filled["updated_at"] = NOW + 3_000
    if status not in (QUEUED, PROCESSING):
        filled["finished_at"] = NOW + 3_000
    if status is COMPLETED:
        filled |= {
            "progress": 100,
            "eta": 0,
            "result": TaskResult("/files/a.mp4", "/files/a.jpg", 5, 99, "1280x720"),
        }
    elif status is FAILED:
        filled["error"] = TaskError("OUT_OF_MEMORY", "There was no memory left.", {"gpu": 0}, True)
    return Task(task.spec, replace(task.state, **{**filled, **state}))


def at_revision(task: Task, revision: int, status: TaskStatus | None = None, **state: Any) -> Task:
    """The same task later on."""
    changes = {"revision": revision, **state, **({} if status is None else {"status": status})}
    return Task(task.spec, replace(task.state, **changes))


def make_event(
    topic: str = "task:video_1",
    revision: int = 1,
    urgency: Urgency = Urgency.PROGRESS,
    *,
    owner: str = OWNER,
    team: str | None = None,
    **state: Any,
) -> Event:
    """An event of a task that is at ``revision``, told to its owner's room and its team's."""
    status = state.pop("status", COMPLETED if urgency is Urgency.FINAL else PROCESSING)
    task = make_task(
        topic.removeprefix("task:"),
        spec={"owner_id": owner, "team_id": team},
        revision=revision,
        status=status,
        **state,
    )
    rooms = (user_channel(owner), *(() if team is None else (team_channel(team),)))
    assert task_channel(task.spec.id) == topic
    return Event(topic, revision, urgency, task, owner, rooms)


def state_of(**changes: Any) -> TaskState:
    """Only the state of ``make_task``."""
    return make_task(**changes).state
