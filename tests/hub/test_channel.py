"""Channels: who is told what, encoded once."""

from collections.abc import Callable

import pytest

from taskwire.core.events import Event, Urgency
from taskwire.hub.channel import Channel
from taskwire.hub.outlet import Outlet, OutletStats
from tests.support.hub import Connection, PlainView, SocketConnection, plain
from tests.support.tasks import make_event

PROGRESS, STATE, FINAL = Urgency.PROGRESS, Urgency.STATE, Urgency.FINAL


class Emptied:
    """Counts how often a channel says that nobody needs it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, channel: Channel) -> None:
        self.count += 1


def count_calls(framing: Callable[[bytes], bytes]) -> tuple[Callable[[bytes], bytes], list[bytes]]:
    calls: list[bytes] = []

    def counted(message: bytes) -> bytes:
        calls.append(message)
        return framing(message)

    return counted, calls


def test_an_event_is_encoded_and_framed_once_for_a_thousand_subscribers() -> None:
    view, (framing, framed) = PlainView(), count_calls(plain)
    channel = Channel("task:video_1", Emptied())
    connections = [Connection() for _ in range(1000)]
    for connection in connections:
        channel.join(connection.outlet, view, framing)
    for congested in connections[:100]:
        congested.outlet.pause()
    assert channel.deliver(make_event(revision=1)) == 1000
    assert view.encoded == len(framed) == 1
    for congested in connections[:100]:
        congested.drain()
    assert {id(connection.written[0]) for connection in connections} == {id(connections[0].written[0])}


def test_an_event_is_encoded_once_per_view_and_framed_once_per_framing() -> None:
    one, two = PlainView("one"), PlainView("two")
    framings = [count_calls(mark.__add__) for mark in (b"<", b">")]
    channel = Channel("task:video_1", Emptied())
    for view in (one, two):
        for framing, _ in framings:
            for _ in range(3):
                channel.join(Connection().outlet, view, framing)
    channel.deliver(make_event(revision=1))
    assert (one.encoded, two.encoded) == (1, 1)
    assert [len(calls) for _, calls in framings] == [2, 2]


def test_a_teams_room_is_framed_once_for_all_members() -> None:
    view, (framing, framed) = PlainView(), count_calls(plain)
    room = Channel("team:blue", Emptied())
    for number in range(50):
        room.join(Connection().outlet, view, framing, tag=f"user_{number}")
    assert room.deliver(make_event(team="blue", owner="user_7")) == 49
    assert view.encoded == len(framed) == 1


def test_a_teams_room_passes_over_the_owner_who_is_told_in_their_own() -> None:
    view = PlainView()
    team, user = Channel("team:blue", Emptied()), Channel("user:ann", Emptied())
    ann, bob = Connection(), Connection()
    user.join(ann.outlet, view, plain)
    team.join(ann.outlet, view, plain, tag="ann")
    team.join(bob.outlet, view, plain, tag="bob")
    event = make_event(owner="ann", team="blue")
    user.deliver(event)
    team.deliver(event)
    assert len(ann.written) == len(bob.written) == 1


def test_an_owner_who_follows_the_task_is_told_there_as_well() -> None:
    channel, connection = Channel("task:video_1", Emptied()), Connection()
    channel.join(connection.outlet, PlainView(), plain, tag="ann")
    channel.deliver(make_event(owner="ann"))
    assert connection.revisions() == [1]


def test_old_news_of_the_topic_is_passed_over() -> None:
    channel, connection = Channel("task:video_1", Emptied()), Connection()
    channel.join(connection.outlet, PlainView(), plain)
    for revision in (3, 3, 2, 1, 5, 4):
        channel.deliver(make_event(revision=revision))
    assert connection.revisions() == [3, 5]
    assert channel.state is not None
    assert channel.state.revision == 5


def test_an_ending_ends_the_subscriptions_of_flowing_and_congested_connections() -> None:
    emptied = Emptied()
    channel = Channel("task:video_1", emptied)
    flowing, congested = Connection(), Connection()
    for connection in (flowing, congested):
        channel.join(connection.outlet, PlainView(), plain)
    congested.outlet.pause()
    channel.deliver(make_event(revision=5, urgency=FINAL))
    assert (channel.count, emptied.count) == (0, 1)
    channel.deliver(make_event(revision=6, urgency=STATE))  # a retry is none of their business
    congested.drain()
    for connection in (flowing, congested):
        assert connection.revisions() == [5]
        assert connection.outlet.subs == {}


def test_an_ending_heard_in_a_room_ends_nothing() -> None:
    room, connection = Channel("user:ann", Emptied()), Connection()
    room.join(connection.outlet, PlainView(), plain)
    room.deliver(make_event(owner="ann", revision=5, urgency=FINAL))
    room.deliver(make_event("task:video_2", 1, owner="ann"))
    assert len(connection.written) == 2


def test_a_second_subscription_of_a_connection_takes_the_place_of_the_first() -> None:
    channel, connection = Channel("task:video_1", Emptied()), Connection()
    old, new = PlainView("old"), PlainView("new")
    first = channel.join(connection.outlet, old, plain)
    second = channel.join(connection.outlet, new, plain)
    channel.deliver(make_event())
    assert [shown.kind for shown in connection.shown] == ["new"]
    assert (channel.count, len(channel.groups)) == (1, 1)
    first.leave()
    assert channel.count == 1
    second.leave()
    assert (channel.count, channel.groups, connection.outlet.subs) == (0, {}, {})


def test_leaving_twice_is_leaving_once() -> None:
    emptied = Emptied()
    channel, connection = Channel("task:video_1", emptied), Connection()
    sub = channel.join(connection.outlet, PlainView(), plain)
    sub.leave()
    sub.leave()
    assert (channel.count, emptied.count) == (0, 1)


def test_a_pinned_channel_is_kept() -> None:
    emptied = Emptied()
    channel = Channel("task:video_1", emptied)
    channel.pins = 1
    channel.join(Connection().outlet, PlainView(), plain).leave()
    assert emptied.count == 0
    channel.pins = 0
    channel.release()
    assert emptied.count == 1


def test_a_view_that_shows_nothing_of_an_event_costs_its_subscribers_nothing() -> None:
    class Blind(PlainView):
        def encode(self, event: Event) -> bytes | None:
            super().encode(event)
            return None

    blind, seeing = Blind(), PlainView()
    channel, first, second = Channel("task:video_1", Emptied()), Connection(), Connection()
    channel.join(first.outlet, blind, plain)
    channel.join(second.outlet, seeing, plain)
    assert channel.deliver(make_event()) == 1
    assert (first.written, len(second.written), blind.encoded) == ([], 1, 1)


def test_subscribers_that_leave_while_they_are_told_do_no_harm() -> None:
    channel = Channel("task:video_1", Emptied())
    written: list[bytes] = []

    def leave_all(frame: bytes) -> None:
        written.append(frame)
        for outlet in outlets:
            outlet.close()

    outlets = [Outlet(leave_all, limit=100, overflow=lambda: None, stats=OutletStats()) for _ in range(3)]
    for outlet in outlets:
        channel.join(outlet, PlainView(), plain)
    channel.deliver(make_event())
    told = len(written)
    channel.deliver(make_event(revision=2))
    assert (channel.count, len(written)) == (0, told)


def test_what_a_socket_does_not_take_is_left_to_the_transport() -> None:
    channel = Channel("task:video_1", Emptied())
    half, full, free = SocketConnection(room=30), SocketConnection(room=0), SocketConnection(room=1000)
    for connection in (half, full, free):
        channel.join(connection.outlet, PlainView(), connection.framing)
    for revision in range(1, 5):
        channel.deliver(make_event(revision=revision, urgency=STATE))
    assert [connection.outlet.congested for connection in (half, full, free)] == [True, True, False]
    for connection in (half, full):
        connection.drain()
        assert connection.read == free.read


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), BrokenPipeError(), OSError(9, "Bad file descriptor")]
)
def test_a_socket_whose_peer_is_gone_does_not_hurt_the_others(error: OSError) -> None:
    channel, gone, there = Channel("task:video_1", Emptied()), Connection(), Connection()

    def push(frame: bytes) -> int:
        raise error

    gone.outlet.push = push
    for connection in (gone, there):
        channel.join(connection.outlet, PlainView(), plain)
    channel.deliver(make_event(revision=1))
    assert (gone.written, there.revisions()) == ([], [1])


@pytest.mark.parametrize("fault", ["view", "framing"])
def test_a_fault_in_one_group_does_not_take_the_news_from_the_others(fault: str) -> None:
    class Broken(PlainView):
        def encode(self, event: Event) -> bytes | None:
            raise RuntimeError("cannot show this")

    def broken(message: bytes) -> bytes:
        raise RuntimeError("cannot frame this")

    channel = Channel("task:video_1", Emptied())
    before, hurt, after = Connection(), Connection(), Connection()
    channel.join(before.outlet, PlainView(), plain)
    if fault == "view":
        channel.join(hurt.outlet, Broken(), plain)
    else:
        channel.join(hurt.outlet, PlainView(), broken)
    channel.join(after.outlet, PlainView(), plain)
    channel.deliver(make_event(revision=1))
    channel.deliver(make_event(revision=2, urgency=FINAL))
    assert before.revisions() == after.revisions() == [1, 2]
    assert hurt.written == []
    assert channel.count == 0
