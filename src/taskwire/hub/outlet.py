"""The hub's end of one connection: writes while it flows, conflates while it is congested, and has a limit.

A congested connection costs memory for what it must still get, and no more: of progress only the newest per topic is
kept, state changes and endings are kept all. Kept frames are the very bytes that the other connections got.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from taskwire.core.events import Event, Urgency

if TYPE_CHECKING:
    from taskwire.hub.channel import Subscription

Write = Callable[[bytes], None]
Push = Callable[[bytes], int]
"""Sends as much of a frame as goes without waiting, and gives how many bytes that was; may raise as a socket does."""
Join = Callable[[list[bytes]], bytes]


class OutletStats:
    """Counters that all outlets of a hub share."""

    __slots__ = ("conflated", "overflows")

    def __init__(self) -> None:
        self.conflated = 0
        self.overflows = 0


class Receiver(Protocol):
    """Where a group puts events for subscribers that are not simply written to."""

    def offer(self, sub: "Subscription", event: Event, frame: bytes) -> None: ...


class Outlet:
    """One connection. ``overflow`` is called once when more than ``limit`` bytes are kept.

    ``write`` takes a frame whole, and calls ``pause`` if the kernel did not take all of it. ``push``, where given, is
    the shorter way: straight to the socket, used only while nothing waits in the transport
    (docs/decisions/0011-straight-to-the-socket.md).
    """

    __slots__ = (
        "_kept", "_kept_bytes", "_limit", "_overflow", "_serial", "_stats", "batcher", "congested", "push", "subs",
        "write",
    )  # fmt: skip

    def __init__(
        self,
        write: Write,
        *,
        limit: int,
        overflow: Callable[[], None],
        stats: OutletStats,
        push: Push | None = None,
    ) -> None:
        self.write = write
        self.push = push or self._write_all
        self.subs: dict[str, Subscription] = {}
        self.congested = False
        self.batcher: Batcher | None = None
        self._limit = limit
        self._overflow = overflow
        self._stats = stats
        # Made while congested only: (channel, topic) or a serial number -> frame, oldest first.
        self._kept: dict[object, bytes] | None = None
        self._kept_bytes = 0
        self._serial = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes waiting for the connection, not counting what its transport holds."""
        return self._kept_bytes + (0 if self.batcher is None else self.batcher.kept_bytes)

    def _write_all(self, frame: bytes) -> int:
        """``push`` over a transport that takes everything."""
        self.write(frame)
        return len(frame)

    def send(self, frame: bytes) -> None:
        """Send a frame that must not get lost, in order with everything else: answers, snapshots, errors."""
        if self.congested:
            self._serial += 1
            self._keep(self._serial, frame)
        else:
            self.write(frame)

    def offer(self, sub: "Subscription", event: Event, frame: bytes) -> None:
        """Take an event for a congested connection."""
        key = (sub.channel.name, event.topic)
        kept = self._kept
        if kept is not None and key in kept:
            # Newer news of the same topic: the progress kept for it is superseded, whatever this one is.
            self._kept_bytes -= len(kept.pop(key))
            self._stats.conflated += 1
        if event.urgency is Urgency.PROGRESS:
            self._keep(key, frame)
        else:
            self.send(frame)

    def _keep(self, key: object, frame: bytes) -> None:
        if self._kept is None:
            self._kept = {}
        self._kept[key] = frame
        self._kept_bytes += len(frame)
        self.check_limit()

    def check_limit(self) -> None:
        """Give the connection up if it is congested and more is kept for it than may be."""
        if self.congested and self.kept_bytes > self._limit:
            self._stats.overflows += 1
            self.drop()
            self._overflow()

    def drop(self) -> None:
        """Forget what is kept; for a connection that will not get it."""
        self._kept = None
        self._kept_bytes = 0
        if self.batcher is not None:
            self.batcher.drop()

    def pause(self) -> None:
        """The transport is full: conflate from now on."""
        if not self.congested:
            self.congested = True
            for sub in self.subs.values():
                sub.group.hold(sub, self)

    def resume(self) -> None:
        """The transport has room: send what was kept, oldest first, and flow again unless it fills up on the way."""
        self.congested = False
        kept = self._kept
        while kept:
            key = next(iter(kept))
            frame = kept.pop(key)
            self._kept_bytes -= len(frame)
            self.write(frame)
            if self.congested:  # the write filled the transport again; it called pause()
                return
        self._kept = None
        self._kept_bytes = 0
        for sub in self.subs.values():
            sub.group.flow(sub, self)
        if self.batcher is not None:
            self.batcher.flush()

    def close(self) -> None:
        """Leave every channel and forget what is kept."""
        for sub in list(self.subs.values()):
            sub.leave()
        self.drop()


class BatchClock:
    """Flushes the batchers that have something, once per interval; one timer for all of them."""

    __slots__ = ("_armed", "_call_later", "_dirty", "_interval")

    def __init__(self, interval: float, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._interval = interval
        self._call_later = call_later
        self._armed = False
        self._dirty: dict[Batcher, None] = {}

    def add(self, batcher: "Batcher") -> None:
        if not self._armed:
            self._armed = True
            self._call_later(self._interval, self._tick)
        self._dirty[batcher] = None

    def discard(self, batcher: "Batcher") -> None:
        self._dirty.pop(batcher, None)

    def _tick(self) -> None:
        self._armed = False
        dirty, self._dirty = self._dirty, {}
        for batcher in dirty:
            batcher.flush()


class Batcher:
    """Collects a connection's updates over a short window and sends them as one message (``batch: true``).

    Within the window progress is conflated per topic, as for a congested connection; state changes are kept all.
    ``join`` makes one frame of several encoded updates. What is collected while the connection is congested counts
    towards its limit.
    """

    __slots__ = ("_clock", "_join", "_kept", "_outlet", "_serial", "kept_bytes")

    def __init__(self, outlet: Outlet, join: Join, clock: BatchClock) -> None:
        self._outlet = outlet
        self._join = join
        self._clock = clock
        self._kept: dict[object, bytes] = {}
        self._serial = 0
        self.kept_bytes = 0

    def offer(self, sub: "Subscription", event: Event, frame: bytes) -> None:
        if not self._kept:
            self._clock.add(self)
        key: object = event.topic
        self.kept_bytes += len(frame) - len(self._kept.pop(key, b""))
        if event.urgency is not Urgency.PROGRESS:
            self._serial += 1
            key = self._serial
        self._kept[key] = frame
        self._outlet.check_limit()

    def flush(self) -> None:
        """Send what was collected; while the connection is congested it goes on collecting instead."""
        if self._kept and not self._outlet.congested:
            frames = list(self._kept.values())
            self.drop()
            self._outlet.send(self._join(frames))

    def drop(self) -> None:
        """Forget what was collected."""
        self._kept = {}
        self.kept_bytes = 0
        self._clock.discard(self)
