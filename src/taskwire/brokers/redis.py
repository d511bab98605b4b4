"""The broker of several nodes: Redis pub/sub (a single server, or any node of a cluster, which passes news on to all).

Local subscribers are told at once, without the way through Redis; what comes back from there is dropped by its
revision. Redis keeps nothing: when its connection has been away, the hub is told to read its topics anew.
"""

import asyncio
import contextlib
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from taskwire.core.codec import event_from_json, event_to_json
from taskwire.core.errors import Unavailable
from taskwire.core.events import Event

log = structlog.get_logger(__name__)

PREFIX: Final = "taskwire:"
EVERYBODY: Final = PREFIX + "nodes"
"""Channel that every node listens to; a message on it means: news was lost, read your topics anew."""

_QUEUE: Final = 20_000  # events waiting for Redis; past that the oldest are given up and the others told so
_REVISIONS: Final = 50_000  # topics whose newest revision is remembered
_TIMEOUT: Final = 5.0  # seconds for Redis to answer
_FAULTS: Final = (RedisError, OSError, TimeoutError)


class RedisBroker:
    """Implements ``hub.ports.Broker``."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_connect_timeout=_TIMEOUT, socket_timeout=_TIMEOUT, health_check_interval=15
        )
        self._node = secrets.token_hex(8)
        self._deliver: Callable[[Event], None] = _nobody
        self._lost: Callable[[], None] = lambda: None
        self._channels: set[str] = set()
        self._pubsub: Any = None
        self._confirmations: dict[str, asyncio.Future[None]] = {}
        self._doubtful: set[str] = set()  # channels whose listening began later than was waited for
        self._commands = asyncio.Lock()
        self._revisions: OrderedDict[str, int] = OrderedDict()
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._gave_up = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, deliver: Callable[[Event], None], lost: Callable[[], None]) -> None:
        self._deliver = deliver
        self._lost = lost
        loop = asyncio.get_running_loop()
        connected = loop.create_future()
        self._tasks = [
            loop.create_task(self._listen_for_ever(connected), name="redis-listen"),
            loop.create_task(self._send_for_ever(), name="redis-send"),
        ]
        try:
            async with asyncio.timeout(2 * _TIMEOUT):
                await connected
        except TimeoutError:
            log.warning("broker.away")  # the node serves what is local meanwhile

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*_FAULTS):
            await self._redis.aclose()

    async def ping(self) -> None:
        try:
            await self._redis.ping()
        except _FAULTS as error:
            raise Unavailable("Redis cannot be reached right now.") from error
        if self._pubsub is None:
            raise Unavailable("Redis is there, but does not tell us of other nodes' news right now.")

    # Publishing

    def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self._take(event)
        self._queue.extend(events)
        while len(self._queue) > _QUEUE:
            self._queue.popleft()
            self._gave_up = True
        self._wake.set()

    async def _send_for_ever(self) -> None:
        delay = 0.05
        while True:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
            batch = [self._queue[index] for index in range(min(len(self._queue), 500))]
            pipeline = self._redis.pipeline(transaction=False)
            for event in batch:
                message = self._message(event)
                for channel in (event.topic, *event.rooms) if message is not None else ():
                    pipeline.execute_command("PUBLISH", PREFIX + channel, message)
            gave_up, self._gave_up = self._gave_up, False
            if gave_up:
                pipeline.execute_command("PUBLISH", EVERYBODY, b"lost")
            try:
                await pipeline.execute()
            except _FAULTS as error:
                self._gave_up |= gave_up
                log.warning("broker.publish_failed", waiting=len(self._queue), error=type(error).__name__)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
                continue
            delay = 0.05
            sent = set(map(id, batch))
            while self._queue and id(self._queue[0]) in sent:
                self._queue.popleft()

    def _message(self, event: Event) -> bytes | None:
        """The event as it is sent; None if it cannot be, which must not keep the others waiting."""
        try:
            return orjson.dumps({"node": self._node, **event_to_json(event)})
        except Exception:
            log.exception("broker.unsendable", topic=event.topic, revision=event.revision)
            self._gave_up = True
            return None

    # Listening

    async def listen(self, channel: str) -> None:
        """While Redis is away this only takes a note: listening begins when it is back, and ``lost`` follows."""
        name = PREFIX + channel
        self._channels.add(name)
        if self._pubsub is None:
            return
        confirmed = self._confirmations.get(name)
        if confirmed is None:
            confirmed = self._confirmations[name] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_TIMEOUT):
                async with self._commands:
                    if self._pubsub is not None:
                        await self._pubsub.subscribe(name)
                await asyncio.shield(confirmed)
        except _FAULTS:
            self._doubtful.add(name)
            log.warning("broker.listen_failed", channel=channel)

    def unlisten(self, channel: str) -> None:
        name = PREFIX + channel
        self._channels.discard(name)
        self._doubtful.discard(name)
        task = asyncio.get_running_loop().create_task(self._unsubscribe(name))
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _unsubscribe(self, name: str) -> None:
        with contextlib.suppress(*_FAULTS):
            async with self._commands:
                if self._pubsub is not None and name not in self._channels:
                    await self._pubsub.unsubscribe(name)

    async def _listen_for_ever(self, connected: "asyncio.Future[None]") -> None:
        """Keep a subscribed connection. After a break subscribe anew, and let the hub read what it may have missed."""
        delay, first = 0.05, True
        while True:
            try:
                pubsub = self._redis.pubsub()
                try:
                    await pubsub.subscribe(EVERYBODY)
                    listening: set[str] = set()
                    while missing := self._channels - listening:  # more may be asked for meanwhile
                        await pubsub.subscribe(*missing)
                        listening |= missing
                    self._pubsub = pubsub
                    delay = 0.05
                    await self._read(pubsub, connected, first=first)
                finally:
                    self._pubsub = None
                    with contextlib.suppress(*_FAULTS):
                        await pubsub.aclose()  # type: ignore[no-untyped-call]
            except _FAULTS as error:
                log.warning("broker.connection_lost", error=type(error).__name__)
            except (
                Exception
            ):  # a node that has stopped listening must not look like one that has nothing to hear
                log.exception("broker.listening_failed")
            first = False
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _read(self, pubsub: Any, connected: "asyncio.Future[None]", *, first: bool) -> None:
        awaited = {EVERYBODY, *self._channels}
        quiet = 0
        while True:
            message = await pubsub.get_message(timeout=_TIMEOUT)
            if message is None:
                quiet += 1
                if quiet > 2:  # not even an answer to the pings: the other end is gone without a word
                    raise TimeoutError
                async with self._commands:
                    await pubsub.ping()
                continue
            quiet = 0
            if message["type"] == "pong":  # of no channel
                continue
            name = message["channel"].decode()
            if message["type"] == "subscribe":
                if (waiting := self._confirmations.pop(name, None)) is not None and not waiting.done():
                    waiting.set_result(None)
                if name in self._doubtful:  # later than was waited for
                    self._doubtful.discard(name)
                    self._lost()
                if awaited:
                    awaited.discard(name)
                    if not awaited:
                        if not connected.done():
                            connected.set_result(None)
                        if not first or self._channels:
                            self._lost()
            elif message["type"] == "message":
                self._hear(name, message["data"])

    def _hear(self, name: str, data: bytes) -> None:
        if name == EVERYBODY:
            self._lost()
            return
        try:
            value = orjson.loads(data)
            if value["node"] == self._node:
                return
            event = event_from_json(value)
        except (ValueError, KeyError, TypeError, IndexError):
            log.warning("broker.bad_message", channel=name)
            return
        self._take(event)

    def _take(self, event: Event) -> None:
        """Deliver an event unless it, or a newer one of its topic, has been delivered."""
        revisions = self._revisions
        if revisions.get(event.topic, 0) >= event.revision:
            return
        revisions[event.topic] = event.revision
        revisions.move_to_end(event.topic)
        if len(revisions) > _REVISIONS:
            revisions.popitem(last=False)
        self._deliver(event)


def _nobody(event: Event) -> None:
    """Nobody hears anything before the start."""


def create(url: str) -> RedisBroker:
    return RedisBroker(url)
