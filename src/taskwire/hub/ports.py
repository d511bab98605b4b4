"""What the hub asks of others: views and framings that make bytes, a broker of news, a loader of states."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from taskwire.core.events import Event


class View(Protocol):
    """How a contract shows an event to one kind of subscriber; one object per contract and role."""

    def encode(self, event: Event) -> bytes | None:
        """The message as the contract writes it, before transport framing; None: this view shows nothing of it."""
        ...


Framing = Callable[[bytes], bytes]
"""Turns a message into the bytes of one transport, e.g. a WebSocket text frame. Compared by identity."""

Load = Callable[[str], Awaitable[Event | None]]
"""Reads the present state of a topic from the store, as a snapshot event; None if there is no such thing."""


class Broker(Protocol):
    """Carries news of committed events between nodes.

    Guarantees that an implementation must give:

    - ``deliver`` is called on the event loop, for one topic in revision order, never twice for one revision.
    - A local ``publish`` reaches local listeners, too, through ``deliver``.
    - When ``listen`` has returned, every event published from then on is delivered, until ``unlisten``.
    - If events may have been lost (a broken connection), ``lost`` is called once listening works again; the hub then
      reads its topics anew. Nothing else is needed, since the database is the source of truth.
    """

    async def start(self, deliver: Callable[[Event], None], lost: Callable[[], None]) -> None: ...

    async def close(self) -> None: ...

    def publish(self, events: Sequence[Event]) -> None:
        """Send committed events out, in order. Must not block and must not raise for a broker that is away."""
        ...

    async def listen(self, channel: str) -> None:
        """Start hearing of ``channel``. If that cannot be had now, ``lost`` follows once it can."""
        ...

    def unlisten(self, channel: str) -> None: ...

    async def ping(self) -> None:
        """Raise Unavailable unless the broker works."""
        ...
