"""What a session works with: the parts of the node that all sessions share, and the transport below it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from taskwire.core.errors import CloseKind
from taskwire.hub.hub import Hub
from taskwire.hub.outlet import BatchClock
from taskwire.server.connections import Connections
from taskwire.server.sweep import Sweep
from taskwire.services.accounts import AccountService
from taskwire.services.tasks import TaskService
from taskwire.settings import Settings


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of a node share."""

    settings: Settings
    hub: Hub
    tasks: TaskService
    accounts: AccountService
    connections: Connections
    sweep: Sweep
    batch_clock: BatchClock
    clock: Callable[[], int]


class Line(Protocol):
    """The transport below a session."""

    deadline: float

    def close(self, kind: CloseKind, reason: str | None = None) -> None:
        """Start the close; the session's own ``close`` follows from it."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def on_deadline(self, now: float) -> None: ...

    def on_ping(self, now: float) -> None: ...

    def on_heartbeat(self, frames: dict[object, bytes]) -> None: ...
