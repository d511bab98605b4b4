"""One timer for all connections: heartbeats and pings spread over their intervals, deadlines, and a coarse clock."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)


class Swept(Protocol):
    """A connection as the sweep sees it. ``deadline`` is monotonic seconds; 0 means none."""

    deadline: float

    def on_deadline(self, now: float) -> None: ...

    def on_ping(self, now: float) -> None:
        """A ping is due; or the last one was not answered in time."""
        ...

    def on_heartbeat(self, frames: dict[object, bytes]) -> None:
        """A heartbeat is due; ``frames`` caches the frame per dialect and framing within one turn."""
        ...


class Wheel:
    """Visits each member once per ``interval``, spread evenly: members are dealt to slots, one slot is due per tick."""

    def __init__(self, interval: float, tick: float) -> None:
        self.slots: list[dict[Swept, None]] = [{} for _ in range(max(1, round(interval / tick)))]
        self._place: dict[Swept, int] = {}
        self._next = 0
        self._due = 0
        # A stride coprime to the number of slots deals arrivals that come together far apart.
        count = len(self.slots)
        self._stride = next(n for n in range(int(count * 0.618) or 1, count + 2) if _coprime(n, count))

    def add(self, member: Swept) -> None:
        self._next = (self._next + self._stride) % len(self.slots)
        self._place[member] = self._next
        self.slots[self._next][member] = None

    def discard(self, member: Swept) -> None:
        place = self._place.pop(member, None)
        if place is not None:
            self.slots[place].pop(member, None)

    def turn(self) -> list[Swept]:
        """The members that are due now."""
        self._due = (self._due + 1) % len(self.slots)
        return list(self.slots[self._due])


def _coprime(a: int, b: int) -> bool:
    while b:
        a, b = b, a % b
    return a == 1


class Sweep:
    """Drives everything that is timed on connections. ``now`` is a monotonic clock as old as one tick at most."""

    def __init__(
        self, *, heartbeat_interval: float, ping_interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._tick = min(0.5, max(0.02, min(heartbeat_interval, ping_interval) / 20))
        self._heartbeats = Wheel(heartbeat_interval, self._tick)
        self._pings = Wheel(ping_interval, self._tick)
        self._deadlines: list[tuple[float, int, Swept]] = []
        self._void = 0  # entries of ``_deadlines`` that count no more
        self._count = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.now = clock()

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick, self._turn)

    def close(self) -> None:
        for timer in (self._timer, self._alarm):
            if timer is not None:
                timer.cancel()

    def add(self, member: Swept) -> None:
        self._heartbeats.add(member)
        self._pings.add(member)

    def discard(self, member: Swept) -> None:
        self._heartbeats.discard(member)
        self._pings.discard(member)
        self.clear_deadline(member)

    def set_deadline(self, member: Swept, seconds: float) -> None:
        """Call ``member.on_deadline`` in ``seconds``, instead of any deadline set before."""
        self.clear_deadline(member)
        member.deadline = when = self._clock() + seconds
        heapq.heappush(self._deadlines, (when, next(self._count), member))
        if self._deadlines[0][0] == when:
            self._arm()

    def clear_deadline(self, member: Swept) -> None:
        """The entry in the heap is passed over when its time comes, or swept out with the others of its kind: a token's
        deadline may lie hours ahead, and would keep a closed connection in memory until then."""
        if not member.deadline:
            return
        member.deadline = 0
        self._void += 1
        if self._void > 100 and self._void > len(self._deadlines) // 2:
            self._deadlines = [entry for entry in self._deadlines if entry[2].deadline == entry[0]]
            heapq.heapify(self._deadlines)
            self._void = 0

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._deadlines:
            # The loop's timers may go off up to a millisecond early.
            delay = max(0.0, self._deadlines[0][0] - self._clock()) + 0.001
            self._alarm = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self._clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            when, _, member = heapq.heappop(self._deadlines)
            if member.deadline == when:
                member.deadline = 0
                self._call(member.on_deadline, now)
            else:
                self._void -= 1
        self._arm()

    def _turn(self) -> None:
        self.now = now = self._clock()
        self._timer = asyncio.get_running_loop().call_later(self._tick, self._turn)
        for member in self._pings.turn():
            self._call(member.on_ping, now)
        frames: dict[object, bytes] = {}
        for member in self._heartbeats.turn():
            self._call(member.on_heartbeat, frames)

    @staticmethod
    def _call(method: Callable[[object], None] | Callable[..., None], argument: object) -> None:
        try:
            method(argument)
        except Exception:  # one connection's trouble must not stop the sweep of the others
            log.exception("sweep.failed")
