"""Tasks in the database: what the writer needs of them, and the reading side (by id, lists, timelines, leases)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from taskwire.core.codec import progress_to_row, state_to_row, task_from_row, task_to_columns
from taskwire.core.events import Event, Urgency, task_channel, team_channel, user_channel
from taskwire.core.filters import TaskFilter
from taskwire.core.tasks import PROCESSING, QUEUED, TERMINAL, Task
from taskwire.store import schema
from taskwire.store.database import Database
from taskwire.store.entities import LogEntry
from taskwire.store.statements import statements


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


class TaskTable:
    """Tasks as the group-commit writer sees them (``EntityTable``)."""

    kind = "task"

    def __init__(self, backend: str) -> None:
        self._sql = statements(backend)

    def revisions(self, connection: Connection, ids: Sequence[str]) -> dict[str, int]:
        found = connection.execute(self._sql["task_revisions"], {"ids": _text(ids)}).scalar_one()
        return dict(orjson.loads(found))

    def load(self, connection: Connection, ids: Sequence[str]) -> dict[str, Task]:
        found = connection.execute(self._sql["task_load"], {"ids": _text(ids)}).scalar_one()
        return {row[0]: task_from_row(row) for row in orjson.loads(found)}

    def insert(self, connection: Connection, entities: Sequence[Task]) -> None:
        connection.execute(insert(schema.tasks), [task_to_columns(task) for task in entities])

    def update(self, connection: Connection, changes: Sequence[tuple[Task, Task]]) -> None:
        progress: list[Task] = []
        rest: list[Task] = []
        for old, new in changes:
            was, now = old.state, new.state
            moved = was.status is not now.status or was.attempt != now.attempt or was.result is not now.result
            (rest if moved else progress).append(new)
        if progress:
            connection.execute(
                self._sql["task_progress"], {"rows": _text([progress_to_row(t) for t in progress])}
            )
        if rest:
            connection.execute(self._sql["task_update"], {"rows": _text([state_to_row(t) for t in rest])})

    def urgency(self, old: Task | None, new: Task) -> Urgency:
        state = new.state
        if old is not None and state.status is old.state.status and state.attempt == old.state.attempt:
            return Urgency.PROGRESS
        return Urgency.FINAL if state.status in TERMINAL else Urgency.STATE

    def log(self, old: Task | None, new: Task) -> LogEntry:
        state = new.state
        data: dict[str, Any] = {}
        if old is None:
            kind = "created"
        elif state.attempt != old.state.attempt:
            kind = "retried" if old.state.finished else "interrupted"
        else:
            kind = {PROCESSING: "started"}.get(state.status, state.status.value.lower())
        if state.message:
            data["message"] = state.message
        if state.error is not None:
            data["error"] = {"code": state.error.code, "message": state.error.message}
        data["progress"] = state.progress
        return LogEntry(kind, state.attempt, data)

    def event(self, entity: Task, urgency: Urgency, committed_at: float) -> Event:
        return task_event(entity, urgency, committed_at)


def task_event(task: Task, urgency: Urgency | None = None, committed_at: float = 0.0) -> Event:
    """The event of a task's present state; without ``urgency`` as a snapshot has it."""
    spec = task.spec
    if urgency is None:
        urgency = Urgency.FINAL if task.state.finished else Urgency.STATE
    rooms: tuple[str, ...] = (user_channel(spec.owner_id),)
    if spec.team_id is not None:
        rooms = (rooms[0], team_channel(spec.team_id))
    return Event(
        task_channel(spec.id), task.state.revision, urgency, task, spec.owner_id, rooms, committed_at
    )


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line of a task's timeline; ``at`` in ms."""

    seq: int
    revision: int
    attempt: int
    at: int
    type: str
    actor: str
    data: Mapping[str, Any]


_columns = [schema.tasks.c[name] for name in schema.tasks.c.keys() if not name.startswith("lease_")]  # noqa: SIM118


class TaskReader:
    """The reading side, and the leases of work under way."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._backend = "sqlite" if database.is_sqlite else "postgresql"

    async def get_many(self, ids: Sequence[str]) -> dict[str, Task]:
        """The tasks among ``ids`` that exist, by id, in one query."""
        sql, wanted = statements(self._backend)["task_load"], _text(list(ids))

        def load(connection: Connection) -> str:
            return str(connection.execute(sql, {"ids": wanted}).scalar_one())

        return {row[0]: task_from_row(row) for row in orjson.loads(await self._database.query(load))}

    async def page(self, where: TaskFilter, *, before: str | None, limit: int) -> list[Task]:
        """Up to ``limit`` tasks, newest first, those older than the id ``before``."""
        t = schema.tasks.c
        query = select(*_columns).order_by(t.id.desc()).limit(limit)
        if before is not None:
            query = query.where(t.id < before)
        if where.owner_ids is not None or where.team_ids is not None:
            query = query.where(
                or_(t.owner_id.in_(where.owner_ids or ()), t.team_id.in_(where.team_ids or ()))
            )
        if where.statuses:
            query = query.where(t.status.in_([status.value for status in where.statuses]))
        if where.providers:
            query = query.where(t.provider.in_(where.providers))
        if where.text:
            query = query.where(
                or_(
                    t.title.icontains(where.text, autoescape=True),
                    t.prompt.icontains(where.text, autoescape=True),
                )
            )
        if where.created_from is not None:
            query = query.where(t.created_at >= where.created_from)
        if where.created_to is not None:
            query = query.where(t.created_at < where.created_to)
        if where.updated_from is not None:
            query = query.where(t.updated_at >= where.updated_from)
        rows = await self._database.query(lambda connection: connection.execute(query).all())
        return [task_from_row(row) for row in rows]

    async def timeline(self, task_id: str, *, limit: int, after: int = 0) -> list[TimelineEntry]:
        """The task's state changes in their order, those behind ``seq`` ``after``."""
        e = schema.events.c
        query = (
            select(e.seq, e.revision, e.attempt, e.at, e.type, e.actor, e.data)
            .where(e.topic == task_channel(task_id), e.seq > after)
            .order_by(e.seq)
            .limit(limit)
        )
        rows = await self._database.query(lambda connection: connection.execute(query).all())
        return [TimelineEntry(*row) for row in rows]

    async def counts(self, owner_id: str | None = None, team_ids: Iterable[str] = ()) -> dict[str, int]:
        """How many tasks there are in each status: of one owner and some teams, or (owner None) all there are."""
        t = schema.tasks.c
        query = select(t.status, func.count()).group_by(t.status)
        if owner_id is not None:
            query = query.where(or_(t.owner_id == owner_id, t.team_id.in_(list(team_ids))))
        rows = await self._database.query(lambda connection: connection.execute(query).all())
        return dict(rows)

    async def key_used(self, scope: str, key: str) -> bool:
        """Whether an Idempotency-Key has made something already."""
        k = schema.idempotency_keys.c
        query = select(k.entity_id).where(k.scope == scope, k.key == key)
        return await self._database.query(lambda connection: connection.execute(query).first()) is not None

    async def waiting(self, provider: str) -> int:
        """How many tasks wait for ``provider``."""
        t = schema.tasks.c
        query = select(func.count()).where(t.provider == provider, t.status == QUEUED.value)
        return int(await self._database.query(lambda connection: connection.execute(query).scalar_one()))

    async def claim(
        self, providers: Iterable[str], node: str, *, now: int, until: int, limit: int, take_own: bool = False
    ) -> list[Task]:
        """Take the lease of unfinished tasks of ``providers`` that nobody works on; oldest first.

        ``take_own`` also takes what this very node held before it was restarted, whether the lease has run out or not.
        """
        t = schema.tasks.c
        free = or_(t.lease_until.is_(None), t.lease_until < now)
        if take_own:
            free = or_(free, t.lease_owner == node)
        unfinished = and_(
            t.provider.in_(list(providers)), t.status.in_([QUEUED.value, PROCESSING.value]), free
        )

        # Two nodes at once pass over what the other one is taking (SQLite has one writer at a time, and no such lock).
        found = select(t.id).where(unfinished).order_by(t.id).limit(limit).with_for_update(skip_locked=True)

        def take(connection: Connection) -> list[str]:
            ids = [row[0] for row in connection.execute(found)]
            if ids:
                lease = {"lease_owner": node, "lease_until": until}
                connection.execute(update(schema.tasks).where(t.id.in_(ids)).values(lease))
            return ids

        ids = await self._database.transact(take)
        tasks = await self.get_many(ids) if ids else {}
        return [tasks[id] for id in ids if id in tasks]

    async def renew(self, ids: Sequence[str], node: str, *, until: int) -> set[str]:
        """Keep the leases of ``ids``; those that are still ours are returned."""
        return set(await self._set_lease(ids, node, {"lease_until": until}))

    async def release(self, ids: Sequence[str], node: str) -> None:
        """Give the leases of ``ids`` back, so that any node may take the tasks at once."""
        await self._set_lease(ids, node, {"lease_owner": None, "lease_until": None})

    async def _set_lease(self, ids: Sequence[str], node: str, values: Mapping[str, Any]) -> list[str]:
        """Change the leases among ``ids`` that ``node`` holds; the ids of those."""
        t = schema.tasks.c
        # Locked in the order of their ids, as the writer does, so that neither waits for the other in a ring.
        mine = select(t.id).where(t.id.in_(ids), t.lease_owner == node).order_by(t.id).with_for_update()

        def change(connection: Connection) -> list[str]:
            held = [row[0] for row in connection.execute(mine)]
            if held:
                connection.execute(update(schema.tasks).where(t.id.in_(held)).values(values))
            return held

        return await self._database.transact(change)

    async def expire(self, before: int, *, limit: int) -> list[str]:
        """Remove tasks that finished before ``before`` (ms) and their events; the ids of those removed."""
        t = schema.tasks.c
        # Locked, so that none of them is retried meanwhile; what is being retried already is passed over.
        found = select(t.id).where(t.finished_at < before).order_by(t.finished_at).limit(limit)
        found = found.with_for_update(skip_locked=True)

        def remove(connection: Connection) -> list[str]:
            ids = [row[0] for row in connection.execute(found)]
            if ids:
                topics = [task_channel(id) for id in ids]
                connection.execute(delete(schema.events).where(schema.events.c.topic.in_(topics)))
                connection.execute(delete(schema.tasks).where(t.id.in_(ids)))
            return ids

        return await self._database.transact(remove)

    async def expire_idempotency_keys(self, before: int) -> None:
        """Forget the Idempotency-Keys used before ``before`` (ms)."""
        old = delete(schema.idempotency_keys).where(schema.idempotency_keys.c.created_at < before)
        await self._database.transact(lambda connection: connection.execute(old))
