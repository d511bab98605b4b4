"""What a contract must say to be served over a text socket; one implementation per file in ``dialects/``."""

from collections.abc import Sequence
from typing import Any, Protocol

from taskwire.core.errors import TaskwireError
from taskwire.core.events import Event
from taskwire.core.principals import Principal
from taskwire.wire.commands import Request


class EventView(Protocol):
    """An encoder of events for one kind of subscriber; the hub's ``View`` is this very shape."""

    def encode(self, event: Event) -> bytes | None: ...


class Dialect(Protocol):
    """One contract. All methods are pure but for the time stamp; messages are UTF-8 JSON without transport framing."""

    name: str
    task_view: EventView
    """What subscribers of a task get."""
    room_view: EventView
    """What connections in a user's or team's room get."""
    batch_view: EventView
    """Like ``room_view``, but pieces for ``batch``."""

    def decode(self, text: str) -> Request:
        """Raises BadMessage."""
        ...

    def authenticated(self, request: Request, principal: Principal, session_id: str) -> bytes: ...

    def subscribed(self, request: Request, task_id: str) -> bytes: ...

    def unsubscribed(self, request: Request, task_id: str) -> bytes: ...

    def state(self, request: Request, event: Event, stale: str | None) -> bytes:
        """The answer to a refresh. ``stale``: why the provider could not be asked, None if the state is fresh."""
        ...

    def pong(self, request: Request) -> bytes: ...

    def error(self, error: TaskwireError, id: Any = None, task_id: str | None = None) -> bytes: ...

    def heartbeat(self, clients: int, uptime: float) -> bytes: ...

    def batch(self, pieces: Sequence[bytes]) -> bytes:
        """One message of several pieces that ``batch_view`` made."""
        ...
