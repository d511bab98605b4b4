"""One connection's end of the hub: order, conflation, the byte bound, batches."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskwire.core.events import Event, Urgency
from taskwire.hub.channel import Channel
from taskwire.hub.outlet import BatchClock, Batcher, OutletStats
from tests.support.hub import Connection, PlainView, Shown, plain
from tests.support.tasks import make_event

PROGRESS, STATE, FINAL = Urgency.PROGRESS, Urgency.STATE, Urgency.FINAL
VIEW = PlainView()


def open_channel(name: str = "task:video_1") -> Channel:
    channel = Channel(name, lambda _: None)
    channel.pins = 1
    return channel


def congested(limit: int = 1 << 20) -> tuple[Connection, Channel]:
    """A connection that follows a task and can write nothing at present."""
    connection, channel = Connection(limit=limit), open_channel()
    channel.join(connection.outlet, VIEW, plain)
    connection.outlet.pause()
    return connection, channel


def told(*events: tuple[int, Urgency]) -> list[bytes]:
    return [Shown("event", "task:video_1", revision, urgency).frame for revision, urgency in events]


def test_an_uncongested_connection_is_written_to_at_once() -> None:
    connection, channel = Connection(), open_channel()
    channel.join(connection.outlet, VIEW, plain)
    connection.outlet.send(b"answer x 0 1")
    channel.deliver(make_event(revision=1))
    assert connection.written == [b"answer x 0 1", *told((1, PROGRESS))]
    assert connection.outlet.kept_bytes == 0


def test_a_congested_connection_gets_the_newest_progress_and_every_state_change() -> None:
    connection, channel = congested()
    for revision, urgency in [
        (1, PROGRESS),
        (2, PROGRESS),
        (3, STATE),
        (4, PROGRESS),
        (5, STATE),
        (6, PROGRESS),
        (7, PROGRESS),
    ]:
        channel.deliver(make_event(revision=revision, urgency=urgency))
    assert connection.written == []
    connection.drain()
    assert connection.written == told((3, STATE), (5, STATE), (7, PROGRESS))
    assert connection.outlet.kept_bytes == 0


def test_an_ending_supersedes_the_progress_before_it() -> None:
    connection, channel = congested()
    channel.deliver(make_event(revision=1))
    channel.deliver(make_event(revision=2, urgency=FINAL))
    connection.drain()
    assert connection.written == told((2, FINAL))
    assert connection.outlet.subs == {}


def test_answers_keep_their_place_among_what_is_kept() -> None:
    connection, channel = congested()
    channel.deliver(make_event(revision=1, urgency=STATE))
    connection.outlet.send(b"pong x 0 1")
    channel.deliver(make_event(revision=2))
    connection.outlet.send(b"pong x 1 1")
    connection.drain()
    assert connection.written == [*told((1, STATE)), b"pong x 0 1", *told((2, PROGRESS)), b"pong x 1 1"]


def test_kept_frames_are_the_very_bytes_that_others_got() -> None:
    connection, channel = congested()
    other = Connection()
    channel.join(other.outlet, VIEW, plain)
    channel.deliver(make_event(revision=1, urgency=STATE))
    connection.drain()
    assert connection.written[0] is other.written[0]


def test_conflation_keeps_memory_flat_while_progress_goes_by() -> None:
    stats = OutletStats()
    connection = Connection(stats=stats)
    channels = [open_channel(f"task:video_{number}") for number in range(20)]
    for channel in channels:
        channel.join(connection.outlet, VIEW, plain)
    connection.outlet.pause()
    most = 0
    for revision in range(1, 501):
        for channel in channels:
            channel.deliver(make_event(channel.name, revision))
            most = max(most, connection.outlet.kept_bytes)
    frame = len(Shown("event", "task:video_10", 500, PROGRESS).frame)
    assert most <= 20 * frame
    assert stats.conflated == 20 * 499
    connection.drain()
    assert connection.revisions("task:video_7") == [500]
    assert len(connection.written) == 20


def test_a_resume_stops_where_the_transport_fills_up_again() -> None:
    connection, channel = congested()
    for revision in range(1, 6):
        channel.deliver(make_event(revision=revision, urgency=STATE))
    connection.drain(room=2)
    assert connection.revisions() == [1, 2]
    assert connection.outlet.congested
    channel.deliver(make_event(revision=6, urgency=STATE))
    assert connection.revisions() == [1, 2]
    assert connection.outlet.kept_bytes == 4 * len(told((6, STATE))[0])
    connection.drain(room=4)
    assert connection.revisions() == [1, 2, 3, 4, 5, 6]
    assert connection.outlet.congested  # the last frame took the last room
    channel.deliver(make_event(revision=7))
    connection.drain()
    channel.deliver(make_event(revision=8))
    assert connection.revisions() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_pause_in_the_middle_of_a_delivery_holds_what_follows() -> None:
    connection = Connection(room=1)
    channel = open_channel()
    channel.join(connection.outlet, VIEW, plain)
    channel.deliver(make_event(revision=1))
    assert connection.outlet.congested
    channel.deliver(make_event(revision=2))
    assert connection.revisions() == [1]
    connection.drain()
    assert connection.revisions() == [1, 2]


def test_a_subscription_made_while_congested_waits_as_well() -> None:
    connection, other = Connection(), open_channel("task:video_2")
    connection.outlet.pause()
    other.join(connection.outlet, VIEW, plain)
    other.deliver(make_event("task:video_2", 4))
    assert connection.written == []
    connection.drain()
    other.deliver(make_event("task:video_2", 5))
    assert connection.revisions("task:video_2") == [4, 5]


def test_past_the_byte_bound_the_connection_is_given_up_once() -> None:
    stats = OutletStats()
    frame = len(told((10, STATE))[0])
    connection = Connection(limit=3 * frame, stats=stats)
    channel, second = open_channel(), open_channel("task:video_2")
    bystander = Connection()
    for each in (connection, bystander):
        channel.join(each.outlet, VIEW, plain)
        second.join(each.outlet, VIEW, plain)
    connection.outlet.pause()
    for revision in range(10, 13):
        channel.deliver(make_event(revision=revision, urgency=STATE))
    assert connection.outlet.kept_bytes == 3 * frame
    assert connection.overflows == 0
    for revision in range(13, 20):
        channel.deliver(make_event(revision=revision, urgency=STATE))
        second.deliver(make_event("task:video_2", revision, STATE))
    assert connection.overflows == stats.overflows == 1
    assert connection.outlet.kept_bytes == 0
    assert connection.outlet.subs == {}
    assert connection.written == []
    assert bystander.revisions() == list(range(10, 20))


def test_conflated_progress_does_not_count_towards_the_bound() -> None:
    connection, channel = congested(limit=40)
    for revision in range(1, 200):
        channel.deliver(make_event(revision=revision))
    assert connection.overflows == 0


def test_answers_count_towards_the_bound() -> None:
    connection, _ = congested(limit=100)
    for _ in range(20):
        connection.outlet.send(b"0123456789")
        if connection.overflows:
            break
    assert connection.overflows == 1
    assert connection.outlet.kept_bytes == 0


def test_a_closed_connection_gets_nothing_more() -> None:
    connection, channel = congested()
    channel.deliver(make_event(revision=1, urgency=STATE))
    connection.outlet.close()
    channel.deliver(make_event(revision=2, urgency=STATE))
    connection.drain()
    assert connection.written == []
    assert channel.count == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("event"), st.integers(0, 2), st.sampled_from([PROGRESS, PROGRESS, STATE])),
            st.tuples(st.just("send"), st.just(0), st.just(STATE)),
            st.tuples(st.just("drain"), st.integers(0, 4), st.just(STATE)),
        ),
        max_size=60,
    )
)
def test_whatever_the_transport_does_order_and_states_are_kept(
    steps: list[tuple[str, int, Urgency]],
) -> None:
    connection = Connection(room=3)
    channels = [open_channel(f"task:video_{number}") for number in range(3)]
    for channel in channels:
        channel.join(connection.outlet, VIEW, plain)
    revisions, told, answers = [0, 0, 0], [[], [], []], 0  # type: ignore[var-annotated]
    for kind, number, urgency in steps:
        if kind == "event":
            revisions[number] += 1
            told[number].append((revisions[number], urgency))
            channels[number].deliver(make_event(f"task:video_{number}", revisions[number], urgency))
        elif kind == "send":
            answers += 1
            connection.outlet.send(Shown("answer", "x", answers, STATE).frame)
        else:
            connection.drain(room=number)
    connection.drain()
    connection.drain()
    assert connection.outlet.kept_bytes == 0
    assert connection.revisions("x", "answer") == list(range(1, answers + 1))
    for number, events in enumerate(told):
        got = connection.revisions(f"task:video_{number}")
        assert got == sorted(set(got))
        assert {revision for revision, urgency in events if urgency is STATE} <= set(got)
        assert not events or got[-1] == events[-1][0]


class Timer:
    """Stands in for the loop's ``call_later``."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, delay: float, callback: Callable[[], None]) -> None:
        self.waiting.append((delay, callback))

    def ring(self) -> None:
        due, self.waiting = self.waiting, []
        for _, callback in due:
            callback()


def join(frames: list[bytes]) -> bytes:
    return b"[" + b",".join(frames) + b"]"


def batching(timer: Timer, limit: int = 1 << 20) -> tuple[Connection, Channel]:
    """A connection in a room, with batches."""
    connection, room = Connection(limit=limit), open_channel("user:ann")
    connection.outlet.batcher = Batcher(connection.outlet, join, BatchClock(0.1, timer))
    room.join(connection.outlet, VIEW, plain, batched=True)
    return connection, room


def news(topic: str, revision: int, urgency: Urgency = PROGRESS) -> Event:
    return make_event(f"task:{topic}", revision, urgency, owner="ann")


def piece(topic: str, revision: int, urgency: Urgency = PROGRESS) -> bytes:
    return Shown("event", f"task:{topic}", revision, urgency).frame


def test_a_batch_is_sent_once_per_window_and_conflated_within_it() -> None:
    timer = Timer()
    connection, room = batching(timer)
    for event in (news("a", 1), news("b", 1, STATE), news("a", 2), news("b", 2), news("a", 3, FINAL)):
        room.deliver(event)
    assert connection.written == []
    assert [delay for delay, _ in timer.waiting] == [0.1]
    timer.ring()
    assert connection.written == [join([piece("b", 1, STATE), piece("b", 2), piece("a", 3, FINAL)])]
    timer.ring()
    assert len(connection.written) == 1
    room.deliver(news("a", 4))
    timer.ring()
    assert connection.written[1:] == [join([piece("a", 4)])]


def test_one_timer_serves_all_batching_connections() -> None:
    timer = Timer()
    clock = BatchClock(0.1, timer)
    room = open_channel("user:ann")
    connections = [Connection() for _ in range(5)]
    for connection in connections:
        connection.outlet.batcher = Batcher(connection.outlet, join, clock)
        room.join(connection.outlet, VIEW, plain, batched=True)
    room.deliver(news("a", 1))
    assert len(timer.waiting) == 1
    timer.ring()
    assert [connection.written for connection in connections] == [[join([piece("a", 1)])]] * 5
    assert timer.waiting == []


def test_answers_do_not_wait_for_the_window() -> None:
    timer = Timer()
    connection, room = batching(timer)
    room.deliver(news("a", 1))
    connection.outlet.send(b"pong x 0 1")
    timer.ring()
    assert connection.written == [b"pong x 0 1", join([piece("a", 1)])]


def test_a_congested_connection_goes_on_collecting_its_batch() -> None:
    timer = Timer()
    connection, room = batching(timer)
    connection.outlet.pause()
    for revision in range(1, 10):
        room.deliver(news("a", revision))
        timer.ring()
    assert connection.written == []
    connection.drain()
    assert connection.written == [join([piece("a", 9)])]
    room.deliver(news("a", 10))
    timer.ring()
    assert connection.written[1:] == [join([piece("a", 10)])]


def test_the_byte_bound_counts_what_a_batch_collects_while_congested() -> None:
    timer = Timer()
    connection, room = batching(timer, limit=300)
    connection.outlet.pause()
    most = 0
    for revision in range(1, 100):
        room.deliver(news("a", revision, STATE))
        most = max(most, connection.outlet.kept_bytes)
    assert connection.overflows == 1
    assert 200 < most <= 300
    assert connection.outlet.kept_bytes == 0
    timer.ring()
    assert connection.written == []


def test_a_full_window_of_a_connection_that_keeps_up_is_no_overflow() -> None:
    timer = Timer()
    connection, room = batching(timer, limit=100)
    for revision in range(1, 100):
        room.deliver(news("a", revision, STATE))
    timer.ring()
    assert connection.overflows == 0
    assert connection.written[0].count(b"event") == 99


def test_a_closed_connection_leaves_its_batch() -> None:
    timer = Timer()
    connection, room = batching(timer)
    room.deliver(news("a", 1))
    connection.outlet.close()
    timer.ring()
    assert connection.written == []
    assert room.count == 0


def test_a_connection_that_leaves_does_not_shorten_the_window_of_the_next() -> None:
    timer = Timer()
    clock = BatchClock(0.1, timer)
    room = open_channel("user:ann")
    for _ in range(3):
        connection = Connection()
        connection.outlet.batcher = Batcher(connection.outlet, join, clock)
        room.join(connection.outlet, VIEW, plain, batched=True)
        room.deliver(news("a", room.count))
        connection.outlet.close()
    assert len(timer.waiting) == 1


@pytest.mark.parametrize("urgency", [STATE, FINAL])
def test_in_a_batch_a_state_change_takes_the_place_of_progress_before_it(urgency: Urgency) -> None:
    timer = Timer()
    connection, room = batching(timer)
    room.deliver(news("a", 1))
    room.deliver(news("a", 2, urgency))
    timer.ring()
    assert connection.written == [join([piece("a", 2, urgency)])]
