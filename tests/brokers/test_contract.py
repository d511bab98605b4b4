"""What every broker in the registry guarantees (``hub.ports.Broker``), shown with the broker itself."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from taskwire.brokers import BROKERS, create_broker
from taskwire.core.errors import Unavailable
from taskwire.core.events import Event, Urgency
from taskwire.hub.ports import Broker
from tests.support.services import Redis
from tests.support.tasks import make_event
from tests.support.timing import eventually_async

pytestmark = pytest.mark.anyio

URLS: dict[str, str] = {"memory": "memory:", "redis": "redis_url"}
"""Scheme -> URL, or the fixture that gives it. Schemes of one implementation are tested by the first of them."""

IMPLEMENTATIONS = {target: scheme for scheme, target in reversed(BROKERS.items())}
BETWEEN_NODES = [scheme for scheme in IMPLEMENTATIONS.values() if scheme != "memory"]
TOPIC = "task:video_1"
STATE, FINAL = Urgency.STATE, Urgency.FINAL


class Node:
    """A node's end of the broker: what it was told, and how often it was told that news was lost."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.heard: list[Event] = []
        self.losses = 0

    async def start(self) -> None:
        await self.broker.start(self.heard.append, self.lost)

    def lost(self) -> None:
        self.losses += 1

    def revisions(self, topic: str = TOPIC) -> list[int]:
        return [event.revision for event in self.heard if event.topic == topic]


class Nodes:
    """Starts nodes on one broker, and closes them."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url = url
        self._stack = stack

    async def start(self) -> Node:
        node = Node(create_broker(self.url))
        await node.start()
        self._stack.push_async_callback(node.broker.close)
        return node


@pytest.fixture(params=IMPLEMENTATIONS.values())
async def nodes(request: pytest.FixtureRequest) -> AsyncIterator[Nodes]:
    assert request.param in URLS, f"say here how to reach a broker for {request.param}:"
    url = URLS[request.param]
    async with AsyncExitStack() as stack:
        yield Nodes(url if ":" in url else request.getfixturevalue(url), stack)


between_nodes = pytest.mark.parametrize("nodes", BETWEEN_NODES, indirect=True)


async def test_what_is_published_here_is_heard_here_in_order(nodes: Nodes) -> None:
    node = await nodes.start()
    await node.broker.listen(TOPIC)
    events = [make_event(revision=revision, urgency=STATE) for revision in range(1, 501)]
    for event in events[:100]:
        node.broker.publish([event])
    node.broker.publish(events[100:])
    await eventually_async(lambda: node.heard == events)


async def test_topics_do_not_disturb_each_other(nodes: Nodes) -> None:
    node = await nodes.start()
    topics = [f"task:video_{number}" for number in range(20)]
    for topic in topics:
        await node.broker.listen(topic)
    for revision in range(1, 21):
        node.broker.publish([make_event(topic, revision) for topic in topics])
    await eventually_async(lambda: len(node.heard) == 400)
    for topic in topics:
        assert node.revisions(topic) == list(range(1, 21))


async def test_an_event_arrives_whole(nodes: Nodes) -> None:
    node = await nodes.start()
    await node.broker.listen(TOPIC)
    event = make_event(revision=7, urgency=FINAL, team="blue", message="Größe „A“")
    node.broker.publish([event])
    await eventually_async(lambda: node.heard == [event])


async def test_publishing_before_the_start_raises_nothing(nodes: Nodes) -> None:
    create_broker(nodes.url).publish([make_event()])


async def test_publishing_nothing_or_to_nobody_is_no_trouble(nodes: Nodes) -> None:
    node = await nodes.start()
    node.broker.publish([])
    node.broker.publish([make_event()])
    node.broker.unlisten(TOPIC)
    await node.broker.ping()


async def test_listening_is_had_again_after_giving_it_up(nodes: Nodes) -> None:
    node = await nodes.start()
    for _ in range(3):
        await node.broker.listen(TOPIC)
        node.broker.unlisten(TOPIC)
    await node.broker.listen(TOPIC)
    node.broker.publish([make_event(revision=1)])
    await eventually_async(lambda: node.revisions() == [1])


async def test_a_broker_is_closed_without_a_trace_and_publishing_then_raises_nothing(nodes: Nodes) -> None:
    node = await nodes.start()
    await node.broker.listen(TOPIC)
    await node.broker.close()
    node.broker.publish([make_event(revision=1)])


@between_nodes
async def test_when_listen_has_returned_every_event_of_other_nodes_is_heard(nodes: Nodes) -> None:
    writer, reader = await nodes.start(), await nodes.start()
    for number in range(30):
        topic = f"task:video_{number}"
        await reader.broker.listen(topic)
        writer.broker.publish([make_event(topic, 1, STATE), make_event(topic, 2, FINAL)])
    await eventually_async(lambda: len(reader.heard) == 60)
    for number in range(30):
        assert reader.revisions(f"task:video_{number}") == [1, 2]


@between_nodes
async def test_an_event_of_another_node_arrives_whole(nodes: Nodes) -> None:
    writer, reader = await nodes.start(), await nodes.start()
    await reader.broker.listen(TOPIC)
    event = make_event(revision=7, urgency=FINAL, team="blue")
    writer.broker.publish([event])
    await eventually_async(lambda: reader.heard == [event])


@between_nodes
async def test_a_room_on_another_node_hears_of_topics_nobody_follows_there(nodes: Nodes) -> None:
    writer, reader = await nodes.start(), await nodes.start()
    await reader.broker.listen("user:ann")
    writer.broker.publish([make_event(owner="ann"), make_event("task:video_2", owner="bob")])
    await eventually_async(lambda: [event.owner_id for event in reader.heard] == ["ann"])


@between_nodes
async def test_an_event_for_several_channels_of_a_node_is_heard_once(nodes: Nodes) -> None:
    writer, reader = await nodes.start(), await nodes.start()
    for channel in (TOPIC, "user:ann", "team:blue"):
        await reader.broker.listen(channel)
    writer.broker.publish(
        [make_event(revision=revision, owner="ann", team="blue") for revision in range(1, 50)]
    )
    await eventually_async(lambda: reader.revisions()[-1:] == [49])
    writer.broker.publish([make_event("task:video_2", 1, owner="ann")])
    await eventually_async(lambda: len(reader.heard) == 50)
    assert reader.revisions() == list(range(1, 50))


@between_nodes
async def test_what_is_not_listened_to_is_not_heard(nodes: Nodes) -> None:
    writer, reader = await nodes.start(), await nodes.start()
    await reader.broker.listen(TOPIC)
    await reader.broker.listen("task:video_2")
    reader.broker.unlisten(TOPIC)
    await eventually_async(lambda: _is_deaf(writer, reader))


async def _is_deaf(writer: Node, reader: Node) -> bool:
    """Whether the reader hears of the second topic, but no more of the first."""
    reader.heard.clear()
    writer.heard.clear()
    revision = next(_numbers)
    writer.broker.publish([make_event(TOPIC, revision), make_event("task:video_2", revision)])
    await eventually_async(lambda: reader.revisions("task:video_2") == [revision])
    return reader.revisions() == []


_numbers = iter(range(1, 10_000))


@pytest.mark.parametrize("nodes", ["redis"], indirect=True)
async def test_a_broken_connection_is_taken_up_again_and_the_loss_is_told(
    nodes: Nodes, redis_server: Redis
) -> None:
    writer, reader = await nodes.start(), await nodes.start()
    await reader.broker.listen(TOPIC)
    redis_server.stop()
    try:
        with pytest.raises(Unavailable):
            await reader.broker.ping()
        writer.broker.publish([make_event(revision=1, urgency=STATE)])
        assert writer.revisions() == [1], "what is local is heard without the broker"
        await reader.broker.listen("task:video_2")
    finally:
        redis_server.start()
    await eventually_async(lambda: reader.losses > 0)
    writer.broker.publish([make_event(revision=2, urgency=STATE), make_event("task:video_2", 1)])
    await eventually_async(lambda: reader.revisions()[-1:] == [2])
    await eventually_async(lambda: reader.revisions("task:video_2") == [1])
    await eventually_async(lambda: _answers(reader.broker))


async def _answers(broker: Broker) -> bool:
    try:
        await broker.ping()
    except Unavailable:
        return False
    return True


def test_an_unknown_scheme_is_refused_with_the_schemes_there_are() -> None:
    with pytest.raises(ValueError, match=r"one of the schemes memory, .*but got 'carrier-pigeon://x'"):
        create_broker("carrier-pigeon://x")
