"""The hub: opening channels, delivering, failing without a trace, and reading anew after a loss."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from taskwire.core.errors import Unavailable
from taskwire.core.events import Event, Urgency
from taskwire.hub.hub import Hub
from tests.support.hub import Connection, ManualBroker, PlainView, Shown, follow, plain
from tests.support.tasks import make_event
from tests.support.timing import eventually_async

pytestmark = pytest.mark.anyio

STATE, FINAL = Urgency.STATE, Urgency.FINAL
TOPIC = "task:video_1"


@dataclass
class Store:
    """What the database holds, and how looking into it goes."""

    events: dict[str, Event] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    failures: list[Exception] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)

    async def load(self, topic: str) -> Event | None:
        self.reads.append(topic)
        found = self.events.get(topic)  # what a query sees is settled when it begins
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return found

    def commit(self, event: Event) -> Event:
        self.events[event.topic] = event
        return event


@dataclass
class World:
    hub: Hub
    broker: ManualBroker
    store: Store
    view: PlainView

    def happen(self, *events: Event) -> None:
        """Commit, then publish."""
        for event in events:
            self.broker.publish([self.store.commit(event)])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store, broker = Store(), ManualBroker()
    hub = Hub(broker, store.load)
    await hub.start()
    store.commit(make_event(revision=1, urgency=STATE))
    yield World(hub, broker, store, PlainView())
    await hub.close()


def start_following(world: World, connection: Connection, topic: str = TOPIC) -> "asyncio.Task[object]":
    return asyncio.get_running_loop().create_task(follow(world.hub, connection, topic, world.view))


async def turns(count: int = 20) -> None:
    """Let everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_subscriber_gets_the_snapshot_then_every_later_event(world: World) -> None:
    connection = Connection()
    await follow(world.hub, connection, TOPIC, world.view)
    world.happen(make_event(revision=2), make_event(revision=3, urgency=FINAL))
    assert connection.shown == [
        Shown("snapshot", TOPIC, 1, STATE),
        Shown("event", TOPIC, 2, Urgency.PROGRESS),
        Shown("event", TOPIC, 3, FINAL),
    ]
    assert (world.hub.channels, world.hub.subscriptions, world.broker.listening) == (0, 0, set())


async def test_an_event_during_the_reading_is_neither_lost_nor_repeated(world: World) -> None:
    world.store.gate = asyncio.Event()
    connection = Connection()
    opening = start_following(world, connection)
    await turns()
    world.happen(make_event(revision=2, urgency=STATE))
    world.store.gate.set()
    await opening
    world.happen(make_event(revision=3))
    assert [(shown.kind, shown.revision) for shown in connection.shown] == [("snapshot", 2), ("event", 3)]


async def test_an_ending_during_the_reading_is_the_snapshot(world: World) -> None:
    world.store.gate = asyncio.Event()
    connection = Connection()
    opening = start_following(world, connection)
    await turns()
    world.happen(make_event(revision=2, urgency=FINAL))
    world.store.gate.set()
    assert await opening is None
    assert connection.shown == [Shown("snapshot", TOPIC, 2, FINAL)]
    assert (world.hub.channels, world.broker.listening) == (0, set())


async def test_a_snapshot_that_is_newer_than_the_news_keeps_it_out(world: World) -> None:
    """A change that is committed but not yet published when the state is read."""
    late = world.store.commit(make_event(revision=2, urgency=STATE))
    connection = Connection()
    await follow(world.hub, connection, TOPIC, world.view)
    world.broker.publish([late])
    assert connection.shown == [Shown("snapshot", TOPIC, 2, STATE)]


async def test_something_finished_answers_with_its_ending_and_leaves_no_subscription(world: World) -> None:
    world.store.commit(make_event(revision=9, urgency=FINAL))
    connection = Connection()
    assert await follow(world.hub, connection, TOPIC, world.view) is None
    assert connection.shown == [Shown("snapshot", TOPIC, 9, FINAL)]
    assert (world.hub.channels, connection.outlet.subs, world.broker.listening) == (0, {}, set())


async def test_an_unknown_topic_leaves_nothing_behind(world: World) -> None:
    assert await world.hub.open_topic("task:nothing") is None
    assert (world.hub.channels, world.broker.listening) == (0, set())


async def test_listening_comes_before_reading(world: World) -> None:
    world.broker.gate = asyncio.Event()
    opening = start_following(world, Connection())
    await turns()
    assert world.store.reads == []
    world.broker.gate.set()
    await opening
    assert world.store.reads == [TOPIC]


async def test_many_subscribers_at_once_cost_one_reading(world: World) -> None:
    connections = [Connection() for _ in range(100)]
    await asyncio.gather(*(follow(world.hub, each, TOPIC, world.view) for each in connections))
    assert world.store.reads == [TOPIC]
    world.happen(make_event(revision=2))
    assert {tuple(each.written) for each in connections} == {tuple(connections[0].written)}
    assert world.hub.subscriptions == 100
    assert world.view.encoded == 1


async def test_a_thousand_subscribers_are_told_with_one_encoding(world: World) -> None:
    connections = [Connection() for _ in range(1000)]
    for connection in connections:
        await follow(world.hub, connection, TOPIC, world.view)
    for revision in range(2, 12):
        world.happen(make_event(revision=revision))
    assert world.view.encoded == 10
    assert world.hub.stats.deliveries == 10_000
    assert world.hub.stats.events == 10


@pytest.mark.parametrize("at", ["listen", "load"])
async def test_a_failed_opening_leaves_nothing_behind_and_the_next_may_succeed(world: World, at: str) -> None:
    if at == "listen":
        world.broker.failure = Unavailable()
    else:
        world.store.failures = [Unavailable()]
    with pytest.raises(Unavailable):
        await world.hub.open_topic(TOPIC)
    assert (world.hub.channels, world.broker.listening) == (0, set())
    world.broker.failure = None
    connection = Connection()
    await follow(world.hub, connection, TOPIC, world.view)
    assert connection.revisions(kind="snapshot") == [1]


async def test_when_one_opening_fails_those_who_waited_for_it_try_themselves(world: World) -> None:
    world.store.gate = asyncio.Event()
    world.store.failures = [Unavailable(), Unavailable()]
    connections = [Connection() for _ in range(5)]
    openings = [start_following(world, connection) for connection in connections]
    await turns()
    world.store.gate.set()
    done = await asyncio.gather(*openings, return_exceptions=True)
    assert sum(isinstance(each, Unavailable) for each in done) == 2
    assert sum(bool(each.written) for each in connections) == 3
    world.happen(make_event(revision=2, urgency=FINAL))
    assert (world.hub.channels, world.broker.listening) == (0, set())


async def test_a_cancelled_opening_is_taken_over_by_those_who_wait(world: World) -> None:
    world.store.gate = asyncio.Event()
    first, second = Connection(), Connection()
    openings = [start_following(world, first), start_following(world, second)]
    await turns()
    openings[0].cancel()
    await turns()
    world.store.gate.set()
    await openings[1]
    assert (first.written, second.revisions(kind="snapshot")) == ([], [1])
    assert world.hub.subscriptions == 1


async def test_a_cancelled_opening_leaves_nothing_behind(world: World) -> None:
    world.store.gate = asyncio.Event()
    opening = start_following(world, Connection())
    await turns()
    opening.cancel()
    await turns()
    assert (world.hub.channels, world.broker.listening) == (0, set())


async def test_the_last_to_leave_closes_the_channel(world: World) -> None:
    connections = [Connection() for _ in range(2)]
    subs = [await follow(world.hub, each, TOPIC, world.view) for each in connections]
    for sub in subs:
        assert world.hub.channels == 1
        assert sub is not None
        sub.leave()
    assert (world.hub.channels, world.broker.listening) == (0, set())
    world.happen(make_event(revision=2))
    assert [each.revisions() for each in connections] == [[], []]


async def test_a_channel_opened_again_after_all_had_left_reads_anew(world: World) -> None:
    connection = Connection()
    sub = await follow(world.hub, connection, TOPIC, world.view)
    assert sub is not None
    sub.leave()
    world.happen(make_event(revision=2), make_event(revision=3))
    await follow(world.hub, connection, TOPIC, world.view)
    assert connection.revisions(kind="snapshot") == [1, 3]


async def test_rooms_hear_of_every_topic_in_them(world: World) -> None:
    connection = Connection()
    room = await world.hub.open_room("user:ann")
    room.join(connection.outlet, world.view, plain)
    world.hub.unpin(room)
    for number in range(3):
        world.happen(make_event(f"task:video_{number}", 1, STATE, owner="ann"))
    world.happen(make_event("task:video_9", 1, STATE, owner="bob"))
    assert [shown.topic for shown in connection.shown] == [f"task:video_{number}" for number in range(3)]
    assert world.store.reads == []


async def test_one_connection_in_the_room_and_on_the_task_is_told_on_both(world: World) -> None:
    connection = Connection()
    room = await world.hub.open_room("user:ann")
    room.join(connection.outlet, PlainView("room"), plain)
    world.hub.unpin(room)
    await follow(world.hub, connection, TOPIC, world.view)
    world.happen(make_event(revision=2, urgency=FINAL, owner="ann"))
    assert sorted(shown.kind for shown in connection.shown) == ["event", "room", "snapshot"]
    assert set(connection.outlet.subs) == {"user:ann"}


async def test_a_fault_in_one_channel_does_not_take_the_news_from_the_others(world: World) -> None:
    connection, other = Connection(), Connection()
    await follow(world.hub, connection, TOPIC, world.view)

    def broken(frame: bytes) -> int:
        raise RuntimeError("no such socket")

    sub = connection.outlet.subs[TOPIC]
    sub.group.pushes[sub] = broken
    room = await world.hub.open_room("user:ann")
    room.join(other.outlet, world.view, plain)
    world.happen(make_event(revision=2, owner="ann"))
    assert other.revisions() == [2]


async def test_observers_hear_how_long_an_ending_took_to_be_written(world: World) -> None:
    seen: list[float] = []
    world.hub.stats.observers.append(seen.append)
    await follow(world.hub, Connection(), TOPIC, world.view)

    def committed(event: Event) -> Event:
        return replace(event, committed_at=time.monotonic() - 5)

    world.happen(committed(make_event(revision=2, urgency=STATE)))
    world.happen(committed(make_event("task:video_7", 1, FINAL)))  # reaches nobody
    assert seen == []
    world.happen(committed(make_event(revision=3, urgency=FINAL)))
    assert len(seen) == 1
    assert 5 <= seen[0] < 100


async def test_after_a_loss_what_moved_is_delivered_and_what_did_not_is_not(world: World) -> None:
    world.store.commit(make_event("task:video_2", 5, STATE))
    connection = Connection()
    for topic in (TOPIC, "task:video_2"):
        await follow(world.hub, connection, topic, world.view)
    world.broker.deaf = True
    world.happen(make_event(revision=2), make_event(revision=3, urgency=STATE))
    world.broker.deaf = False
    world.broker.lost()
    await eventually_async(lambda: connection.revisions() == [3])
    assert connection.revisions("task:video_2") == []
    world.happen(make_event(revision=4, urgency=FINAL))
    assert connection.revisions() == [3, 4]


async def test_an_ending_that_was_lost_is_delivered_once_and_ends_the_subscription(world: World) -> None:
    connection = Connection()
    await follow(world.hub, connection, TOPIC, world.view)
    world.broker.deaf = True
    world.happen(make_event(revision=2, urgency=FINAL))
    world.broker.deaf = False
    world.broker.lost()
    world.broker.lost()
    await eventually_async(lambda: connection.revisions() == [2])
    await turns()
    assert connection.shown[1:] == [Shown("event", TOPIC, 2, FINAL)]
    assert (world.hub.channels, connection.outlet.subs) == (0, {})


async def test_a_loss_during_the_reading_after_a_loss_is_made_good_as_well(world: World) -> None:
    connection = Connection()
    await follow(world.hub, connection, TOPIC, world.view)
    world.store.gate = asyncio.Event()
    world.broker.lost()
    await turns()  # the reading has begun, and sees revision 1
    world.broker.deaf = True
    world.happen(make_event(revision=2, urgency=STATE))
    world.broker.deaf = False
    world.broker.lost()
    world.store.gate.set()
    await eventually_async(lambda: connection.revisions() == [2])


async def test_a_loss_while_a_topic_is_being_opened_is_made_good(world: World) -> None:
    world.store.gate = gate = asyncio.Event()
    connection = Connection()
    opening = start_following(world, connection)
    await turns()  # it listens, and its query sees revision 1
    world.broker.deaf = True
    world.happen(make_event(revision=2, urgency=FINAL))
    world.broker.deaf = False
    world.broker.lost()
    await turns()
    gate.set()
    await opening
    await eventually_async(lambda: [shown.revision for shown in connection.shown][-1:] == [2])
    assert [shown.urgency for shown in connection.shown].count(FINAL) == 1
    await eventually_async(lambda: world.hub.channels == 0)


async def test_reading_anew_is_tried_until_the_store_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskwire.hub.hub.RESYNC_RETRY", 0.001)
    connection = Connection()
    await follow(world.hub, connection, TOPIC, world.view)
    world.broker.deaf = True
    world.happen(make_event(revision=2, urgency=STATE))
    world.store.failures = [Unavailable(), RuntimeError("broken")]
    world.broker.lost()
    await eventually_async(lambda: connection.revisions() == [2])


async def test_closing_ends_a_reading_under_way(world: World) -> None:
    await follow(world.hub, Connection(), TOPIC, world.view)
    world.store.gate = asyncio.Event()
    world.broker.lost()
    await turns()
    await world.hub.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "hub-resync"]
