"""The one timer of all connections, over a clock and a loop that the test turns."""

import asyncio
import gc
import heapq
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from taskwire.server.sweep import Sweep, Wheel


class Handle:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """An event loop's timers, and the clock they go by. As a real loop's, they may be due a little early."""

    early = 0.0005

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = itertools.count()

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        assert delay >= 0
        handle = Handle(self.now + delay, callback)
        heapq.heappush(self._timers, (handle.when, next(self._count), handle))
        return handle

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what becomes due."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, handle = heapq.heappop(self._timers)
            if not handle.cancelled:
                self.now = max(self.now, when - self.early)
                handle.callback()
        self.now = end

    @property
    def waiting(self) -> int:
        return sum(not handle.cancelled for _, _, handle in self._timers)


class Member:
    """A connection that notes when it was called."""

    def __init__(self, loop: FakeLoop) -> None:
        self.loop = loop
        self.deadline = 0.0
        self.deadlines: list[float] = []
        self.pings: list[float] = []
        self.heartbeats: list[float] = []
        self.frames: list[dict[object, bytes]] = []

    def on_deadline(self, now: float) -> None:
        self.deadlines.append(self.loop.now)

    def on_ping(self, now: float) -> None:
        self.pings.append(self.loop.now)

    def on_heartbeat(self, frames: dict[object, bytes]) -> None:
        self.heartbeats.append(self.loop.now)
        self.frames.append(frames)


class Failing(Member):
    """A connection whose every call fails."""

    def on_deadline(self, now: float) -> None:
        raise RuntimeError("deadline")

    def on_ping(self, now: float) -> None:
        raise RuntimeError("ping")

    def on_heartbeat(self, frames: dict[object, bytes]) -> None:
        raise RuntimeError("heartbeat")


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    fake = FakeLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: fake)
    return fake


@pytest.fixture
def sweep(loop: FakeLoop) -> Iterator[Sweep]:
    made = Sweep(heartbeat_interval=30, ping_interval=25, clock=loop.clock)
    made.start()
    yield made
    made.close()
    assert loop.waiting == 0


def members(loop: FakeLoop, sweep: Sweep, count: int) -> list[Member]:
    made = [Member(loop) for _ in range(count)]
    for member in made:
        sweep.add(member)
    return made


# The wheel


@given(st.floats(0.1, 60), st.floats(0.02, 1), st.integers(1, 300))
def test_a_wheel_visits_each_member_once_per_turn_and_spreads_them_evenly(
    interval: float, tick: float, count: int
) -> None:
    wheel = Wheel(interval, tick)
    crowd: list[Any] = [object() for _ in range(count)]
    for member in crowd:
        wheel.add(member)
    visited: list[Any] = []
    sizes = []
    for _ in wheel.slots:
        due = wheel.turn()
        sizes.append(len(due))
        visited += due
    assert sorted(map(id, visited)) == sorted(map(id, crowd))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("slots", [5, 20, 50, 60, 90, 120])
def test_those_that_arrive_together_are_dealt_apart(slots: int) -> None:
    wheel = Wheel(slots, 1)
    for number in range(max(2, slots // 10)):
        wheel.add(number)  # type: ignore[arg-type]
    due = [turn for turn in range(slots) if wheel.turn()]
    gaps = [later - earlier for earlier, later in itertools.pairwise([*due, due[0] + slots])]
    assert min(gaps) >= 2


def test_who_left_a_wheel_is_not_visited() -> None:
    wheel = Wheel(1, 0.5)
    crowd: list[Any] = ["a", "b", "c"]
    for member in crowd:
        wheel.add(member)
    wheel.discard(crowd[1])
    wheel.discard(crowd[1])
    wheel.discard("never there")  # type: ignore[arg-type]
    assert sorted(str(each) for _ in wheel.slots for each in wheel.turn()) == ["a", "c"]


# Heartbeats and pings


def test_every_connection_is_pinged_and_gets_a_heartbeat_once_per_interval(
    loop: FakeLoop, sweep: Sweep
) -> None:
    crowd = members(loop, sweep, 100)
    loop.advance(300.1)
    for member in crowd:
        assert len(member.heartbeats) == 10
        assert len(member.pings) == 12
        for times, interval in ((member.heartbeats, 30), (member.pings, 25)):
            for earlier, later in itertools.pairwise(times):
                assert later - earlier == pytest.approx(interval, abs=0.1)


def test_heartbeats_are_spread_over_the_interval(loop: FakeLoop, sweep: Sweep) -> None:
    crowd = members(loop, sweep, 600)
    loop.advance(30.1)
    first = sorted(member.heartbeats[0] for member in crowd)
    for tenth in range(10):
        within = [at for at in first if 1000 + 3 * tenth < at <= 1003 + 3 * tenth]
        assert 50 <= len(within) <= 70


def test_frames_are_shared_within_a_turn_and_not_beyond(loop: FakeLoop, sweep: Sweep) -> None:
    crowd = members(loop, sweep, 120)
    loop.advance(30.1)
    shared: dict[int, set[float]] = {}
    for member in crowd:
        shared.setdefault(id(member.frames[0]), set()).add(member.heartbeats[0])
    assert len(shared) == 60
    assert all(len(times) == 1 for times in shared.values())


def test_the_coarse_clock_is_as_old_as_one_tick_at_most(loop: FakeLoop, sweep: Sweep) -> None:
    for _ in range(100):
        loop.advance(0.13)
        assert 0 <= loop.now - sweep.now <= 0.51


@pytest.mark.parametrize(("heartbeat", "ping"), [(0.1, 25), (30, 0.2), (1, 1), (0.1, 0.1), (3600, 3600)])
def test_short_and_long_intervals_are_kept(loop: FakeLoop, heartbeat: float, ping: float) -> None:
    sweep = Sweep(heartbeat_interval=heartbeat, ping_interval=ping, clock=loop.clock)
    sweep.start()
    (member,) = members(loop, sweep, 1)
    span = 10 * max(heartbeat, ping) if max(heartbeat, ping) < 100 else 3600
    loop.advance(span)
    assert len(member.heartbeats) == pytest.approx(span / heartbeat, rel=0.05, abs=1)
    assert len(member.pings) == pytest.approx(span / ping, rel=0.05, abs=1)
    sweep.close()


def test_who_left_is_called_no_more(loop: FakeLoop, sweep: Sweep) -> None:
    (member,) = members(loop, sweep, 1)
    sweep.set_deadline(member, 5)
    sweep.discard(member)
    loop.advance(100)
    assert (member.deadlines, member.pings, member.heartbeats) == ([], [], [])


def test_a_connection_that_fails_does_not_stop_the_others(loop: FakeLoop, sweep: Sweep) -> None:
    with structlog.testing.capture_logs() as logged:
        crowd: list[Member] = []
        for _ in range(60):
            crowd += members(loop, sweep, 1)
            failing = Failing(loop)
            sweep.add(failing)
            sweep.set_deadline(failing, 1)
            sweep.set_deadline(crowd[-1], 1)
        loop.advance(61)
    for each in crowd:
        assert len(each.heartbeats) in (2, 3)
        assert len(each.pings) in (2, 3)
        assert len(each.deadlines) == 1
    assert {entry["event"] for entry in logged} == {"sweep.failed"}
    assert len(logged) >= 60 * 5


# Deadlines


@pytest.mark.parametrize("seconds", [0, 0.001, 0.3, 10, 3600])
def test_a_deadline_is_kept_to_the_millisecond(loop: FakeLoop, sweep: Sweep, seconds: float) -> None:
    member = Member(loop)
    sweep.set_deadline(member, seconds)
    loop.advance(seconds + 1)
    (at,) = member.deadlines
    assert 0 <= at - 1000 - seconds <= 0.002
    assert member.deadline == 0
    loop.advance(10_000)
    assert len(member.deadlines) == 1


def test_a_deadline_takes_the_place_of_the_one_before(loop: FakeLoop, sweep: Sweep) -> None:
    sooner, later = Member(loop), Member(loop)
    sweep.set_deadline(sooner, 10)
    sweep.set_deadline(sooner, 5)
    sweep.set_deadline(later, 5)
    sweep.set_deadline(later, 10)
    loop.advance(20)
    assert [round(at) for at in sooner.deadlines] == [1005]
    assert [round(at) for at in later.deadlines] == [1010]


def test_a_deadline_that_was_lifted_does_not_come(loop: FakeLoop, sweep: Sweep) -> None:
    member = Member(loop)
    sweep.set_deadline(member, 5)
    sweep.clear_deadline(member)
    sweep.clear_deadline(member)
    loop.advance(10)
    assert member.deadlines == []


def test_a_deadline_may_be_set_anew_when_one_has_come(loop: FakeLoop, sweep: Sweep) -> None:
    class Again(Member):
        def on_deadline(self, now: float) -> None:
            super().on_deadline(now)
            if len(self.deadlines) < 5:
                sweep.set_deadline(self, 2)

    member = Again(loop)
    sweep.set_deadline(member, 2)
    loop.advance(60)
    assert [round(at) for at in member.deadlines] == [1002, 1004, 1006, 1008, 1010]


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "set", "clear", "wait"]), st.integers(0, 5), st.floats(0.01, 20)),
        max_size=60,
    )
)
def test_whatever_is_set_lifted_and_set_anew_each_comes_in_its_time(
    steps: list[tuple[str, int, float]],
) -> None:
    loop = FakeLoop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        sweep = Sweep(heartbeat_interval=30, ping_interval=25, clock=loop.clock)
        crowd = [Member(loop) for _ in range(6)]
        due: list[float | None] = [None] * 6
        came = [0] * 6
        for kind, index, seconds in [*steps, ("wait", 0, 100.0)]:
            if kind == "set":
                sweep.set_deadline(crowd[index], seconds)
                due[index] = loop.now + seconds
            elif kind == "clear":
                sweep.clear_deadline(crowd[index])
                due[index] = None
            else:
                loop.advance(seconds)
                for each, at in enumerate(due):
                    if at is not None and at <= loop.now - 0.002:
                        came[each] += 1
                        assert crowd[each].deadlines[-1] == pytest.approx(at, abs=0.002)
                        due[each] = None
                    elif at is not None and at <= loop.now:
                        due[each] = None if len(crowd[each].deadlines) > came[each] else at
                        came[each] = len(crowd[each].deadlines)
        assert [len(each.deadlines) for each in crowd] == came


def test_deadlines_of_connections_that_are_gone_take_no_memory(loop: FakeLoop, sweep: Sweep) -> None:
    """A token's deadline may lie a day ahead; connections come and go meanwhile."""
    staying = members(loop, sweep, 50)
    for member in staying:
        sweep.set_deadline(member, 86_400)
    gone = []
    for _ in range(5000):
        member = Member(loop)
        sweep.add(member)
        sweep.set_deadline(member, 10)
        sweep.set_deadline(member, 86_400)
        sweep.discard(member)
        gone.append(weakref.ref(member))
    del member
    gc.collect()
    assert sum(each() is not None for each in gone) < 300
    loop.advance(86_401)
    assert all(len(member.deadlines) == 1 for member in staying)


def test_closing_stops_everything(loop: FakeLoop) -> None:
    sweep = Sweep(heartbeat_interval=1, ping_interval=1, clock=loop.clock)
    sweep.start()
    (member,) = members(loop, sweep, 1)
    sweep.set_deadline(member, 1)
    sweep.close()
    loop.advance(10)
    assert (member.deadlines, member.pings, member.heartbeats) == ([], [], [])
