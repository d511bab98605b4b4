"""The task and its state machine: QUEUED → PROCESSING → COMPLETED | FAILED | CANCELLED, by attempts.

A task is two parts: ``TaskSpec`` never changes after creation, ``TaskState`` is replaced whole at every change. The
functions below are the only ones that make a new state. Each returns the state it was given, the very same object, when
there is nothing to change, so that callers can test with ``is``.

Rules (docs/concepts.md):

- A finished attempt is latched: no report changes it. Only ``retry`` leaves it, by opening the next attempt.
- Progress never goes back inside an attempt. A report whose progress, or step if it gives only that, is behind is
  late: all of it is dropped.
- ``revision`` grows by one with every change; it never repeats, also not across attempts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import isfinite
from typing import Any, Final


class TaskStatus(StrEnum):
    """Where an attempt stands."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


QUEUED, PROCESSING = TaskStatus.QUEUED, TaskStatus.PROCESSING
COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
TERMINAL: Final = frozenset({COMPLETED, FAILED, CANCELLED})

Number = int | float


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a completed task made. ``duration`` in seconds, ``file_size`` in bytes, ``resolution`` as ``"1280x720"``.

    URLs may be relative to the server's public URL. ``extra`` keeps whatever else the producer said.
    """

    video_url: str = ""
    thumbnail_url: str = ""
    duration: Number = 0
    file_size: int = 0
    resolution: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task failed. ``details`` is JSON-able; ``retryable`` tells whether a new attempt may help."""

    code: str
    message: str
    details: Any = None
    retryable: bool = False


NO_REASON: Final = TaskError("TASK_FAILED", "The task failed; no reason was given.", None, True)
CANCELLED_ERROR: Final = TaskError("CANCELLED", "The task was cancelled.", None, True)


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What was asked for. Never changes after creation."""

    id: str
    owner_id: str
    provider: str
    prompt: str
    created_at: int
    team_id: str | None = None
    title: str = ""
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskState:
    """Where the task stands. ``progress`` is 0–100; ``eta`` seconds to the end, None when unknown; times in ms."""

    queued_at: int
    updated_at: int
    revision: int = 1
    attempt: int = 1
    status: TaskStatus = QUEUED
    progress: Number = 0
    current_step: int | None = None
    total_steps: int | None = None
    message: str = ""
    eta: Number | None = None
    started_at: int | None = None
    finished_at: int | None = None
    result: TaskResult | None = None
    error: TaskError | None = None

    @property
    def finished(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Task:
    """A task as everybody may see it: what was asked, and where it stands. Holds no secret."""

    spec: TaskSpec
    state: TaskState

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def revision(self) -> int:
        return self.state.revision


@dataclass(frozen=True, slots=True)
class Metrics:
    """Times of the present attempt, in seconds, up to its end or up to ``now``."""

    total_time: float
    queue_time: float
    process_time: float


class Verdict(StrEnum):
    """What became of a report."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"  # it says what was known already
    STALE = "stale"  # behind what is known: late or out of order
    FINISHED = "finished"  # the attempt has ended; the latch holds
    OLD_ATTEMPT = "old-attempt"


@dataclass(frozen=True, slots=True)
class Report:
    """What a reporter says of a task; None means "nothing said". ``attempt`` None means "the present one"."""

    status: TaskStatus | None = None
    progress: Number | None = None
    current_step: int | None = None
    total_steps: int | None = None
    message: str | None = None
    eta: Number | None = None
    result: TaskResult | None = None
    error: TaskError | None = None
    attempt: int | None = None


def new_task(spec: TaskSpec) -> Task:
    """A task as it is at creation: queued, first attempt, revision 1."""
    return Task(spec, TaskState(queued_at=spec.created_at, updated_at=spec.created_at))


def apply_report(state: TaskState, report: Report, now: int) -> tuple[TaskState, Verdict]:
    """Take a report in. Never raises: a report that must not count gives the old state and the reason."""
    if report.attempt is not None and report.attempt != state.attempt:
        return state, Verdict.OLD_ATTEMPT
    if state.status in TERMINAL:
        return state, Verdict.FINISHED
    status = report.status
    if status in TERMINAL:
        return _finish(state, report, status, now), Verdict.APPLIED
    if _is_behind(state, report) or (status is QUEUED and state.status is PROCESSING):
        return state, Verdict.STALE
    progress = _reported_progress(state, report)
    if status is None:
        # A reporter that speaks of progress or steps has begun, whether it says so or not.
        begun = progress is not None or report.current_step is not None
        status = PROCESSING if begun else state.status
    changed = _advance(state, report, status, progress, now)
    return changed, Verdict.UNCHANGED if changed is state else Verdict.APPLIED


def cancel(state: TaskState, now: int) -> tuple[TaskState, Verdict]:
    """End the attempt as cancelled, unless it has ended already."""
    return apply_report(state, Report(status=CANCELLED), now)


def next_attempt(state: TaskState, now: int, *, message: str = "") -> TaskState:
    """Open the next attempt: queued, from zero.

    Used for a retry somebody asked for (of a failed or cancelled attempt) and for work that a crash interrupted. A
    completed task stays as it is.
    """
    if state.status is COMPLETED:
        return state
    now = max(now, state.updated_at)
    return TaskState(
        queued_at=now,
        updated_at=now,
        revision=state.revision + 1,
        attempt=state.attempt + 1,
        message=message,
    )


def metrics(state: TaskState, now: int) -> Metrics:
    """Queue, process and total time of the present attempt."""
    end = state.finished_at if state.finished_at is not None else max(now, state.updated_at)
    begin = state.started_at if state.started_at is not None else end
    queue = max(0, begin - state.queued_at) / 1000
    process = max(0, end - begin) / 1000
    return Metrics(total_time=round(queue + process, 3), queue_time=queue, process_time=process)


def _is_behind(state: TaskState, report: Report) -> bool:
    """Whether the report tells of an earlier moment: its progress does, or its step if that is all it gives."""
    if report.progress is not None:
        return _percent(report.progress) < state.progress
    step, known = report.current_step, state.current_step
    return step is not None and known is not None and step < known


def _reported_progress(state: TaskState, report: Report) -> Number | None:
    """The progress in 0–100 after the report, from its steps where it gives only those; None if it says nothing of it.

    Steps may turn out to be more than was thought, so that they tell of less than is known: progress stays then.
    """
    if report.progress is not None:
        return _percent(report.progress)
    step = report.current_step
    steps = state.total_steps if report.total_steps is None else report.total_steps
    if step is None or steps is None or steps <= 0:
        return None
    return max(state.progress, _percent(100 * min(step, steps) / steps))


def _percent(value: Number) -> Number:
    """``value`` within 0–100; what is no number counts as 0."""
    return normal_number(min(100, max(0, value)))


def _reported_eta(report: Report) -> Number | None:
    eta = report.eta
    return None if eta is None or not isfinite(eta) else normal_number(max(0, eta))


def normal_number(value: Number) -> Number:
    """Two decimals at most, and an integer where it is one: 35.0 and 35 are the same news."""
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def _advance(
    state: TaskState, report: Report, status: TaskStatus, progress: Number | None, now: int
) -> TaskState:
    """The state after a report that does not end the attempt; the same object if it says nothing new."""
    new_progress = state.progress if progress is None else progress
    step = state.current_step if report.current_step is None else report.current_step
    steps = state.total_steps if report.total_steps is None else report.total_steps
    message = state.message if report.message is None else report.message
    result = state.result if report.result is None else report.result
    moved = (
        status is not state.status
        or new_progress != state.progress
        or step != state.current_step
        or steps != state.total_steps
        or message != state.message
        or result != state.result
    )
    eta = _reported_eta(report)
    if not moved and (eta is None or eta == state.eta):
        return state
    now = max(now, state.updated_at)  # a clock that steps back must not make times run backwards
    started_at = state.started_at
    if started_at is None and status is PROCESSING:
        started_at = now
    if eta is None:
        eta = _estimate(new_progress, started_at, now)
    return TaskState(
        state.queued_at, now, state.revision + 1, state.attempt, status, new_progress, step, steps, message, eta,
        started_at, None, result, None,
    )  # fmt: skip


def _estimate(progress: Number, started_at: int | None, now: int) -> Number | None:
    """Seconds to the end if the rest goes at the mean speed so far; None before there is anything to go by."""
    if started_at is None or progress < 1 or now - started_at < 200:
        return None
    return round((now - started_at) / 1000 * (100 - progress) / progress, 1)


def _finish(state: TaskState, report: Report, status: TaskStatus, now: int) -> TaskState:
    """The state after the report that ends the attempt."""
    now = max(now, state.updated_at)
    progress = 100 if status is COMPLETED else max(state.progress, _reported_progress(state, report) or 0)
    steps = state.total_steps if report.total_steps is None else report.total_steps
    step = state.current_step if report.current_step is None else report.current_step
    if status is COMPLETED and steps is not None and report.current_step is None:
        step = steps
    return replace(
        state,
        status=status,
        revision=state.revision + 1,
        updated_at=now,
        started_at=state.started_at if state.started_at is not None or status is not COMPLETED else now,
        finished_at=now,
        progress=progress,
        current_step=step,
        total_steps=steps,
        message=state.message if report.message is None else report.message,
        eta=0 if status is COMPLETED else None,
        result=_result(state, report, status),
        error=_error(report, status),
    )


def _error(report: Report, status: TaskStatus) -> TaskError | None:
    if status is COMPLETED:
        return None
    if status is CANCELLED:  # whoever cancelled may say why, but the code is the contract's
        return CANCELLED_ERROR if report.error is None else replace(report.error, code=CANCELLED_ERROR.code)
    return NO_REASON if report.error is None else report.error


def _result(state: TaskState, report: Report, status: TaskStatus) -> TaskResult | None:
    result = report.result if report.result is not None else state.result
    return TaskResult() if result is None and status is COMPLETED else result
