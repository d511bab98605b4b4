"""Connections, views and brokers for tests of the hub: what is written is kept, and the test decides when."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taskwire.core.events import Event, Urgency
from taskwire.hub.channel import Subscription
from taskwire.hub.hub import Hub
from taskwire.hub.outlet import Outlet, OutletStats


@dataclass(frozen=True)
class Shown:
    """A message as the tests' view makes it."""

    kind: str
    topic: str
    revision: int
    urgency: Urgency

    @property
    def frame(self) -> bytes:
        return f"{self.kind} {self.topic} {self.revision} {int(self.urgency)}".encode()

    @classmethod
    def parse(cls, frame: bytes) -> "Shown":
        kind, topic, revision, urgency = frame.decode().split()
        return cls(kind, topic, int(revision), Urgency(int(urgency)))


class PlainView:
    """Shows topic, revision and urgency, and counts how often it is asked to."""

    def __init__(self, kind: str = "event") -> None:
        self.kind = kind
        self.encoded = 0

    def encode(self, event: Event) -> bytes | None:
        self.encoded += 1
        return Shown(self.kind, event.topic, event.revision, event.urgency).frame


def plain(message: bytes) -> bytes:
    """The framing that adds nothing."""
    return message


class Connection:
    """An outlet over a transport that takes ``room`` more frames and then asks for a pause, as asyncio's do."""

    framing = staticmethod(plain)

    def __init__(
        self, *, room: float = float("inf"), limit: int = 1 << 20, stats: OutletStats | None = None
    ) -> None:
        self.room = room
        self.written: list[bytes] = []
        self.overflows = 0
        self.outlet = Outlet(self._write, limit=limit, overflow=self._overflow, stats=stats or OutletStats())

    def _write(self, frame: bytes) -> None:
        self.written.append(frame)
        self.room -= 1
        if self.room <= 0:
            self.outlet.pause()

    def _overflow(self) -> None:
        self.overflows += 1
        self.outlet.close()

    def drain(self, room: float = float("inf")) -> None:
        """The peer has read: there is ``room`` for so many frames again."""
        self.room = room
        if room > 0 and self.outlet.congested:
            self.outlet.resume()

    @property
    def shown(self) -> list[Shown]:
        return [Shown.parse(frame) for frame in self.written]

    def revisions(self, topic: str = "task:video_1", kind: str = "event") -> list[int]:
        """The revisions of ``topic`` in the order in which they came."""
        return [shown.revision for shown in self.shown if shown.topic == topic and shown.kind == kind]


def line(message: bytes) -> bytes:
    """The framing that ends each message."""
    return message + b"\n"


class SocketConnection(Connection):
    """An outlet over a socket whose kernel buffer has room for so many bytes, and a transport that keeps the rest.

    Frames are pushed straight to the socket while nothing waits in the transport; ``written`` is what the peer reads.
    """

    framing = staticmethod(line)

    def __init__(self, *, room: int, limit: int = 1 << 20) -> None:
        super().__init__(room=room, limit=limit)
        self.outlet = Outlet(
            self._write, limit=limit, overflow=self._overflow, stats=OutletStats(), push=self._push
        )
        self.read = bytearray()
        self._waiting = bytearray()

    def _push(self, frame: bytes) -> int:
        assert not self._waiting, "a frame overtakes what the transport keeps"
        if self.room <= 0:
            raise BlockingIOError
        sent = int(min(self.room, len(frame)))
        self.read += frame[:sent]
        self.room -= sent
        return sent

    def _write(self, frame: bytes) -> None:
        self._waiting += frame
        self._flush()
        if self._waiting:
            self.outlet.pause()

    def _flush(self) -> None:
        sent = int(min(self.room, len(self._waiting)))
        self.read += self._waiting[:sent]
        del self._waiting[:sent]
        self.room -= sent

    def drain(self, room: float = float("inf")) -> None:
        self.room = room
        self._flush()
        if not self._waiting and self.outlet.congested:
            self.outlet.resume()

    @property
    def shown(self) -> list[Shown]:
        whole, _, _ = bytes(self.read).rpartition(b"\n")
        return [Shown.parse(frame) for frame in whole.split(b"\n") if frame]


async def follow(
    hub: Hub, connection: Connection, topic: str, view: PlainView, *, kind: str = "snapshot"
) -> Subscription | None:
    """Subscribe as a session does: answer with the snapshot and join, in one step; None if there is nothing to join."""
    channel = await hub.open_topic(topic)
    if channel is None:
        return None
    try:
        state = channel.state
        assert state is not None
        connection.outlet.send(connection.framing(Shown(kind, topic, state.revision, state.urgency).frame))
        if state.urgency is Urgency.FINAL:
            return None
        return channel.join(connection.outlet, view, connection.framing)
    finally:
        hub.unpin(channel)


@dataclass
class ManualBroker:
    """Delivers only what is listened to, as a broker between nodes does; can be made slow, deaf, or to fail."""

    listening: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None
    failure: Exception | None = None
    deaf: bool = False
    deliver: Callable[[Event], None] = print
    lost: Callable[[], None] = print
    unlistened: list[str] = field(default_factory=list)

    async def start(self, deliver: Callable[[Event], None], lost: Callable[[], None]) -> None:
        self.deliver, self.lost = deliver, lost

    async def close(self) -> None:
        self.listening.clear()

    def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            if not self.deaf and self.listening.intersection((event.topic, *event.rooms)):
                self.deliver(event)

    async def listen(self, channel: str) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.listening.add(channel)

    def unlisten(self, channel: str) -> None:
        self.unlistened.append(channel)
        self.listening.discard(channel)

    async def ping(self) -> None:
        """Always there."""
