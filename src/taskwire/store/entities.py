"""What the group-commit writer needs to know of a kind of entity; one implementation per kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection

from taskwire.core.events import Event, Urgency


class Entity(Protocol):
    """Anything with an id and a revision that grows with every change."""

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of the event log: ``type`` (created, started, completed, …) and what belongs to it."""

    type: str
    attempt: int
    data: Mapping[str, Any]


class EntityTable(Protocol):
    """How entities of one kind are read, written and announced. Called inside the writer's transaction."""

    kind: str

    def revisions(self, connection: Connection, ids: Sequence[str]) -> dict[str, int]:
        """The stored revisions, with the rows locked until the end of the transaction."""
        ...

    def load(self, connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
        """The stored entities, by id; unknown ids are absent."""
        ...

    def insert(self, connection: Connection, entities: Sequence[Any]) -> None: ...

    def update(self, connection: Connection, changes: Sequence[tuple[Any, Any]]) -> None:
        """Write entities anew, given as (as stored, as it is now)."""
        ...

    def urgency(self, old: Any | None, new: Any) -> Urgency:
        """How much the change from ``old`` (None: created) to ``new`` matters to a connection that lags."""
        ...

    def log(self, old: Any | None, new: Any) -> LogEntry:
        """The event-log line of a change that is more than progress."""
        ...

    def event(self, entity: Any, urgency: Urgency, committed_at: float) -> Event: ...


@dataclass(frozen=True, slots=True)
class Guard:
    """An Idempotency-Key: ``key`` used once within ``scope`` (a user) makes one entity; the same again finds that."""

    scope: str
    key: str
    fingerprint: str


@dataclass(slots=True)
class Command:
    """A change somebody wants. ``apply(entity or None, now)`` gives (the new or the same entity, the answer).

    ``apply`` runs inside the transaction, maybe in another thread, maybe more than once: it must be pure. What it
    raises becomes the answer; the other commands of the commit are not touched by that.
    """

    table: EntityTable
    key: str
    apply: Callable[[Any | None, int], tuple[Any | None, Any]]
    actor: str = "system"
    guard: Guard | None = None
