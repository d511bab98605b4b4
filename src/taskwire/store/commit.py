"""One group commit, as a plain function over a connection: read and lock, apply every command, write what changed."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, tuple_

from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.core.events import Urgency
from taskwire.store import schema
from taskwire.store.entities import Command, EntityTable, Guard, LogEntry

Key = tuple[str, str]


class Step:
    """One change of one entity that is written and published by itself."""

    __slots__ = ("actor", "entity", "log", "urgency")

    def __init__(self, entity: Any, urgency: Urgency, log: LogEntry | None, actor: str) -> None:
        self.entity = entity
        self.urgency = urgency
        self.log = log
        self.actor = actor


class Line:
    """One entity's way through a batch: as stored, as it is now, and the steps between."""

    __slots__ = ("entity", "steps", "stored", "table")

    def __init__(self, table: EntityTable, entity: Any | None) -> None:
        self.table = table
        self.stored = entity
        self.entity = entity
        self.steps: list[Step] = []

    def move(self, new: Any, actor: str) -> None:
        """Take the next state; progress that nobody has seen yet gives way to it."""
        urgency = self.table.urgency(self.entity, new)
        entry = None if urgency is Urgency.PROGRESS else self.table.log(self.entity, new)
        if self.steps and self.steps[-1].urgency is Urgency.PROGRESS:
            self.steps.pop()
        self.steps.append(Step(new, urgency, entry, actor))
        self.entity = new


class Batch:
    """What one commit works on. ``cache`` maps (kind, id) to entities; it is read here and never written."""

    def __init__(self, commands: Sequence[Command], cache: Mapping[Key, Any], now: int) -> None:
        self.commands = commands
        self.cache = cache
        self.now = now
        self.lines: dict[Key, Line] = {}
        self.answers: list[Any] = []
        self.guards: dict[tuple[str, str], tuple[str, str]] = {}  # (scope, key) -> (fingerprint, entity id)
        self.new_guards: list[dict[str, Any]] = []


def run_batch(connection: Connection, batch: Batch) -> None:
    """Apply the commands of ``batch`` in their order and write the outcome. Nothing of it holds until the commit."""
    _read_guards(connection, batch)
    _read_entities(connection, batch)
    for command in batch.commands:
        batch.answers.append(_apply(batch, command))
    _write(connection, batch)


def _read_guards(connection: Connection, batch: Batch) -> None:
    wanted = {(guard.scope, guard.key) for command in batch.commands if (guard := command.guard) is not None}
    if not wanted:
        return
    k = schema.idempotency_keys.c
    rows = connection.execute(
        select(k.scope, k.key, k.fingerprint, k.entity_id).where(tuple_(k.scope, k.key).in_(list(wanted)))
    )
    batch.guards = {(scope, key): (fingerprint, id) for scope, key, fingerprint, id in rows}


def _read_entities(connection: Connection, batch: Batch) -> None:
    """Lock and read every entity the commands name; one that the cache holds at its stored revision is not read."""
    keys: dict[str, dict[str, None]] = {}
    tables: dict[str, EntityTable] = {}
    for command in batch.commands:
        table = command.table
        tables[table.kind] = table
        ids = keys.setdefault(table.kind, {})
        ids[command.key] = None
        if command.guard is not None and (
            known := batch.guards.get((command.guard.scope, command.guard.key))
        ):
            ids[known[1]] = None
    for kind, ids in keys.items():
        table = tables[kind]
        revisions = table.revisions(connection, list(ids))
        missing = []
        for id in ids:
            revision = revisions.get(id)
            entity = None if revision is None else batch.cache.get((kind, id))
            if entity is not None and entity.revision == revision:
                batch.lines[kind, id] = Line(table, entity)
            elif revision is None:
                batch.lines[kind, id] = Line(table, None)
            else:
                missing.append(id)
        if missing:
            loaded = table.load(connection, missing)
            for id in missing:
                batch.lines[kind, id] = Line(table, loaded.get(id))


def _apply(batch: Batch, command: Command) -> Any:
    """Apply one command; its answer. An exception is an answer, and leaves the entity as it was."""
    key = (command.table.kind, command.key)
    guard = command.guard
    if guard is not None and (known := batch.guards.get((guard.scope, guard.key))) is not None:
        return _replay(batch, command, known)
    line = batch.lines[key]
    try:
        new, answer = command.apply(line.entity, batch.now)
    except TaskwireError as error:
        return error
    # Whatever is news has a revision of its own; a creation that is tried again after its commit makes none.
    if new is not None and (line.entity is None or new.revision > line.entity.revision):
        line.move(new, command.actor)
        if guard is not None:
            _use(batch, guard, command.key)
    return answer


def _replay(batch: Batch, command: Command, known: tuple[str, str]) -> Any:
    """The answer to a repeated creation: what the first one made, unless the request differs."""
    fingerprint, id = known
    guard = command.guard
    assert guard is not None
    if fingerprint != guard.fingerprint:
        return InvalidRequest(
            f"The Idempotency-Key {guard.key!r} was used for a different request; use a new key.",
            code="IDEMPOTENCY_KEY_REUSED",
        )
    line = batch.lines.get((command.table.kind, id))
    if line is None or line.entity is None:
        return TaskwireError(
            "CONFLICT", "What this Idempotency-Key made has been removed since; use a new key."
        )
    return line.entity


def _use(batch: Batch, guard: Guard, id: str) -> None:
    batch.guards[guard.scope, guard.key] = (guard.fingerprint, id)
    batch.new_guards.append(
        {
            "scope": guard.scope,
            "key": guard.key,
            "fingerprint": guard.fingerprint,
            "entity_id": id,
            "created_at": batch.now,
        }
    )


def _entry(topic: str, step: Step, log: LogEntry, now: int) -> dict[str, Any]:
    return {
        "topic": topic,
        "revision": step.entity.revision,
        "attempt": log.attempt,
        "at": now,
        "type": log.type,
        "actor": step.actor,
        "data": dict(log.data),
    }


def _write(connection: Connection, batch: Batch) -> None:
    inserts: dict[str, tuple[EntityTable, list[Any]]] = {}
    updates: dict[str, tuple[EntityTable, list[tuple[Any, Any]]]] = {}
    entries: list[dict[str, Any]] = []
    for (kind, id), line in batch.lines.items():
        if not line.steps:
            continue
        if line.stored is None:
            inserts.setdefault(kind, (line.table, []))[1].append(line.entity)
        else:
            updates.setdefault(kind, (line.table, []))[1].append((line.stored, line.entity))
        topic = f"{kind}:{id}"
        entries += [_entry(topic, step, step.log, batch.now) for step in line.steps if step.log is not None]
    for table, entities in inserts.values():
        table.insert(connection, entities)
    for table, changes in updates.values():
        table.update(connection, changes)
    if entries:
        connection.execute(insert(schema.events), entries)
    if batch.new_guards:
        connection.execute(insert(schema.idempotency_keys), batch.new_guards)
