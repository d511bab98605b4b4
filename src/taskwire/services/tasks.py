"""What can be done with tasks: create, look at, list, report on, cancel, retry, refresh."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from taskwire.core.errors import InvalidRequest, NotFound, TaskwireError
from taskwire.core.events import Event
from taskwire.core.filters import TaskFilter
from taskwire.core.ids import is_id, new_id
from taskwire.core.principals import Principal
from taskwire.core.tasks import (
    CANCELLED,
    COMPLETED,
    QUEUED,
    Report,
    Task,
    TaskError,
    TaskSpec,
    TaskStatus,
    Verdict,
    apply_report,
    cancel,
    new_task,
    next_attempt,
)
from taskwire.services.loader import BatchLoader
from taskwire.services.ports import Provider, Runner
from taskwire.store.entities import Command, EntityTable, Guard
from taskwire.store.tasks import TaskReader, TimelineEntry, task_event
from taskwire.store.writer import Writer

INTERRUPTED = TaskError("INTERRUPTED", "The work was interrupted too often.", None, True)


AFTER_CRASH = "Taken up again after a crash"
AFTER_RESTART = "Taken up again after a restart"


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """What a caller asks for; ``options`` as the provider understands them."""

    prompt: str
    provider: str
    title: str = ""
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    team_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """The answer to a report: the task's revision after it, what became of the report, and how the task stands."""

    revision: int
    verdict: Verdict
    status: TaskStatus
    attempt: int


class TaskService:
    """Tasks, for callers with rights. Everything that changes goes through the writer."""

    def __init__(
        self,
        *,
        writer: Writer,
        reader: TaskReader,
        table: EntityTable,
        providers: Mapping[str, Provider],
        clock: Callable[[], int],
        max_waiting: int,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._table = table
        self._providers = providers
        self._clock = clock
        self._max_waiting = max_waiting
        self._loader = BatchLoader(reader.get_many)

    # Reading

    async def load(self, topic: str) -> Event | None:
        """The present state of ``task:…`` as a snapshot event, None if there is none (``hub.ports.Load``)."""
        task_id = topic.removeprefix("task:")
        task = await self._loader.get(task_id) if is_id(task_id) else None
        return None if task is None else task_event(task)

    async def get(self, principal: Principal, task_id: str) -> Task:
        """Raises NotFound for what the caller may not see, as for what does not exist."""
        task = await self._loader.get(task_id) if is_id(task_id) else None
        return _visible(task, principal)

    async def list(
        self, principal: Principal, where: TaskFilter, *, before: str | None, limit: int
    ) -> Sequence[Task]:
        """A page of the tasks the caller may see, newest first. ``where``'s owners and teams narrow, never widen."""
        if not principal.is_admin:
            owners: Sequence[str] = (principal.user_id,)
            teams: Sequence[str] = tuple(principal.teams)
            if where.owner_ids is not None or where.team_ids is not None:
                owners = [id for id in where.owner_ids or () if id in owners]
                teams = [id for id in where.team_ids or () if id in teams]
            where = replace(where, owner_ids=owners, team_ids=teams)
        return await self._reader.page(where, before=before, limit=limit)

    async def timeline(
        self, principal: Principal, task_id: str, *, limit: int, after: int = 0
    ) -> Sequence[TimelineEntry]:
        """The task's state changes, oldest first, behind sequence number ``after``."""
        await self.get(principal, task_id)
        return await self._reader.timeline(task_id, limit=limit, after=after)

    async def refresh(self, principal: Principal, task_id: str) -> tuple[Event, str | None]:
        """The newest state, and why it may be stale (None: it is fresh). Local providers' state is always fresh."""
        return task_event(await self.get(principal, task_id)), None

    async def counts(self, principal: Principal) -> dict[str, int]:
        """How many of the tasks that the caller may see there are in each status."""
        if principal.is_admin:
            return await self._reader.counts()
        return await self._reader.counts(principal.user_id, principal.teams)

    # Changing

    async def create(
        self, principal: Principal, draft: TaskDraft, *, idempotency_key: str | None = None
    ) -> tuple[Task, bool]:
        """Make a task. Gives it, and whether it is new: with a key used before, the task made then is given."""
        provider = self._providers.get(draft.provider)
        if provider is None:
            wanted = ", ".join(sorted(self._providers))
            raise InvalidRequest(
                f"`provider`: wanted one of {wanted}, but got {draft.provider!r}", code="UNKNOWN_PROVIDER"
            )
        if draft.team_id is not None and draft.team_id not in principal.teams and not principal.is_admin:
            raise InvalidRequest("`teamId`: wanted the id of a team that you belong to")
        options = provider.check_options(draft.options)
        repeated = idempotency_key is not None and await self._reader.key_used(
            principal.user_id, idempotency_key
        )
        if isinstance(provider, Runner) and not repeated:
            await self._check_room(draft.provider)
        now = self._clock()
        spec = TaskSpec(
            id=new_id("video", now),
            owner_id=principal.user_id,
            team_id=draft.team_id,
            provider=draft.provider,
            prompt=draft.prompt,
            title=draft.title,
            description=draft.description,
            options=options,
            metadata=draft.metadata,
            created_at=now,
        )
        task = new_task(spec)
        guard = None
        if idempotency_key is not None:
            guard = Guard(principal.user_id, idempotency_key, _fingerprint(draft))
        command = Command(self._table, spec.id, lambda present, now: (task, task), _actor(principal), guard)
        made: Task = await self._writer.submit(command)
        return made, made is task

    async def _check_room(self, provider: str) -> None:
        waiting = await self._reader.waiting(provider)
        if waiting >= self._max_waiting:
            raise TaskwireError(
                "RATE_LIMITED", f"{waiting} tasks wait for {provider} already.", retry_after=30
            )

    async def report(self, principal: Principal, task_id: str, report: Report) -> Reported:
        """Take a producer's report; answers after the commit."""
        answer: Reported = await self._writer.submit(self._report_command(principal, task_id, report))
        return answer

    async def report_many(
        self, principal: Principal, reports: Sequence[tuple[str, Report]]
    ) -> Sequence[Reported | BaseException]:
        """Take many reports in one commit; one answer each, in order, refusals among them as exceptions."""
        actor = _actor(principal)
        commands = [self._report_command(principal, id, report, actor) for id, report in reports]
        return await self._writer.submit_many(commands)

    def _report_command(
        self, principal: Principal, task_id: str, report: Report, actor: str | None = None
    ) -> Command:
        providers = self._providers

        def apply(task: Task | None, now: int) -> tuple[Task | None, Reported]:
            task = _visible(task, principal)
            provider = providers.get(task.spec.provider)
            if provider is None or not provider.reportable:
                raise TaskwireError("NOT_REPORTABLE")
            state, verdict = apply_report(task.state, report, now)
            changed = task if state is task.state else Task(task.spec, state)
            return changed, Reported(state.revision, verdict, state.status, state.attempt)

        return Command(self._table, _key(task_id), apply, actor or _actor(principal))

    async def cancel(self, principal: Principal, task_id: str) -> Task:
        """End the task as cancelled. Cancelling it again is no error; raises TASK_FINISHED if it ended otherwise."""

        def apply(task: Task | None, now: int) -> tuple[Task, Task]:
            task = _visible(task, principal)
            state, verdict = cancel(task.state, now)
            if verdict is Verdict.FINISHED and state.status is not CANCELLED:
                raise TaskwireError("TASK_FINISHED", f"The task is {state.status.value} already.")
            changed = task if state is task.state else Task(task.spec, state)
            return changed, changed

        done: Task = await self._writer.submit(Command(self._table, _key(task_id), apply, _actor(principal)))
        return done

    async def retry(self, principal: Principal, task_id: str) -> Task:
        """Open the next attempt of a failed or cancelled task."""

        def apply(task: Task | None, now: int) -> tuple[Task, Task]:
            task = _visible(task, principal)
            if task.state.status is COMPLETED:
                raise TaskwireError("TASK_FINISHED", "The task is COMPLETED; create a new one instead.")
            if not task.state.finished:
                raise TaskwireError("TASK_NOT_FINISHED", "Only a failed or cancelled task can be retried.")
            changed = Task(task.spec, next_attempt(task.state, now))
            return changed, changed

        done: Task = await self._writer.submit(Command(self._table, _key(task_id), apply, _actor(principal)))
        return done

    # For those who run the work

    async def interrupted(self, task_id: str, *, actor: str, crashed: bool, max_crashes: int) -> Task | None:
        """Work on it was cut off: open the next attempt. None if the task is over.

        A crash may be the task's own doing, so after ``max_crashes`` of them since somebody last asked for the task it
        fails; restarts in good order do not count.
        """
        crashes = 0
        if crashed:
            for entry in await self._reader.timeline(task_id, limit=10_000):
                if entry.type == "retried":
                    crashes = 0
                elif entry.type == "interrupted" and entry.data.get("message") == AFTER_CRASH:
                    crashes += 1

        def apply(task: Task | None, now: int) -> tuple[Task | None, Task | None]:
            if task is None or task.state.finished:
                return task, None
            if task.state.status is QUEUED:
                return task, task
            if crashes >= max_crashes:
                report = Report(status=TaskStatus.FAILED, error=INTERRUPTED)
                return Task(task.spec, apply_report(task.state, report, now)[0]), None
            state = next_attempt(task.state, now, message=AFTER_CRASH if crashed else AFTER_RESTART)
            changed = Task(task.spec, state)
            return changed, changed

        answer: Task | None = await self._writer.submit(Command(self._table, task_id, apply, actor))
        return answer

    async def report_own(self, task_id: str, report: Report, *, actor: str) -> Reported | None:
        """A provider's own report, without questions of rights; None if the task has been removed."""

        def apply(task: Task | None, now: int) -> tuple[Task | None, Reported | None]:
            if task is None:
                return None, None
            state, verdict = apply_report(task.state, report, now)
            changed = task if state is task.state else Task(task.spec, state)
            return changed, Reported(state.revision, verdict, state.status, state.attempt)

        answer: Reported | None = await self._writer.submit(Command(self._table, task_id, apply, actor))
        return answer


def _visible(task: Task | None, principal: Principal) -> Task:
    if task is None or not principal.may_see(task.spec.owner_id, task.spec.team_id):
        raise NotFound("TASK_NOT_FOUND")
    return task


def _key(task_id: str) -> str:
    """The key to look a task up by: for text that no task can have as its id, one that none has."""
    return task_id if is_id(task_id) else ""


def _actor(principal: Principal) -> str:
    return f"key:{principal.key_id}" if principal.key_id is not None else f"user:{principal.user_id}"


def _fingerprint(draft: TaskDraft) -> str:
    said = [
        draft.prompt, draft.provider, draft.title, draft.description, dict(draft.options), dict(draft.metadata),
        draft.team_id,
    ]  # fmt: skip
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()
