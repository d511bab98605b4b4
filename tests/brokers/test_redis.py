"""What only the Redis broker meets: rubbish on its channels, a full queue, a Redis that stalls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
import redis.asyncio as redis

from taskwire.brokers import redis as module
from taskwire.brokers.redis import EVERYBODY, PREFIX, RedisBroker
from taskwire.core.codec import event_to_json
from taskwire.core.events import Event, Urgency
from tests.support.tasks import make_event
from tests.support.timing import eventually_async

pytestmark = pytest.mark.anyio

TOPIC = "task:video_1"


class Node:
    def __init__(self, url: str) -> None:
        self.broker = RedisBroker(url)
        self.heard: list[Event] = []
        self.losses = 0

    def lost(self) -> None:
        self.losses += 1

    @property
    def revisions(self) -> list[int]:
        return [event.revision for event in self.heard]


Start = Callable[[], Awaitable[Node]]


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start_node() -> Node:
            node = Node(redis_url)
            await node.broker.start(node.heard.append, node.lost)
            stack.push_async_callback(node.broker.close)
            return node

        yield start_node


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Any]:
    """A plain client."""
    client = redis.Redis.from_url(redis_url)
    yield client
    await client.aclose()


VALID = {"node": "other", **event_to_json(make_event(revision=1))}


@pytest.mark.parametrize(
    "rubbish",
    [
        b"", b"\xff", b"null", b"[]", b"{}", b'"text"', b'{"node":"x"}', b'{"node":"x","task":{}}',
        orjson.dumps({**VALID, "task": [1] * 24}), orjson.dumps({**VALID, "urgency": 9}),
        orjson.dumps({**VALID, "rooms": 5}), orjson.dumps({**VALID, "task": None}),
    ],
)  # fmt: skip
async def test_rubbish_on_a_channel_is_passed_over(start: Start, raw: Any, rubbish: bytes) -> None:
    node = await start()
    await node.broker.listen(TOPIC)
    await raw.publish(PREFIX + TOPIC, rubbish)
    await raw.publish(PREFIX + TOPIC, orjson.dumps(VALID))
    await eventually_async(lambda: node.revisions == [1])


async def test_a_word_to_everybody_makes_them_read_anew(start: Start, raw: Any) -> None:
    node = await start()
    assert node.losses == 0
    await raw.publish(EVERYBODY, b"lost")
    await eventually_async(lambda: node.losses == 1)


async def test_when_the_queue_overflows_the_others_are_told(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_QUEUE", 10)
    writer, reader = await start(), await start()
    await reader.broker.listen(TOPIC)
    events = [make_event(revision=revision) for revision in range(1, 31)]
    writer.broker.publish(events)
    assert writer.heard == events
    await eventually_async(lambda: reader.losses > 0)
    await eventually_async(lambda: reader.revisions[-1:] == [30])
    assert reader.revisions == list(range(21, 31))


async def test_an_event_that_cannot_be_sent_does_not_stop_the_others(start: Start) -> None:
    writer, reader = await start(), await start()
    await reader.broker.listen(TOPIC)
    bad = Event(TOPIC, 1, Urgency.STATE, "no task", "ann")
    writer.broker.publish([bad])
    await eventually_async(lambda: reader.losses > 0)
    writer.broker.publish([make_event(revision=2)])
    await eventually_async(lambda: reader.revisions == [2])


async def test_an_echo_of_ones_own_is_not_heard_twice(start: Start) -> None:
    node, other = await start(), await start()
    await node.broker.listen(TOPIC)
    await other.broker.listen(TOPIC)
    node.broker.publish([make_event(revision=1)])
    await eventually_async(lambda: other.revisions == [1])
    other.broker.publish([make_event(revision=2)])
    await eventually_async(lambda: node.revisions == [1, 2])


async def test_old_news_from_another_node_is_not_delivered(start: Start) -> None:
    node, other = await start(), await start()
    await node.broker.listen(TOPIC)
    node.broker.publish([make_event(revision=5)])
    other.broker.publish([make_event(revision=4), make_event(revision=6)])
    await eventually_async(lambda: node.revisions == [5, 6])


async def test_if_redis_stalls_longer_than_is_waited_for_what_was_missed_is_read(
    start: Start, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start()
    monkeypatch.setattr(module, "_TIMEOUT", 0.1)
    await raw.execute_command("CLIENT", "PAUSE", "400", "ALL")
    await node.broker.listen(TOPIC)  # gives up waiting
    assert node.losses == 0
    await eventually_async(lambda: node.losses > 0)
    await raw.publish(PREFIX + TOPIC, orjson.dumps(VALID))
    await eventually_async(lambda: node.revisions == [1])


async def test_closing_leaves_no_task_behind(redis_url: str) -> None:
    node = Node(redis_url)
    await node.broker.start(node.heard.append, node.lost)
    await node.broker.listen(TOPIC)
    node.broker.unlisten(TOPIC)
    await node.broker.close()
    await eventually_async(
        lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("redis")]
    )
