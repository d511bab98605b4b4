"""The hub: opens channels, hears of committed events and hands each to the channels that have subscribers here."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from taskwire.core.events import Event, Urgency
from taskwire.hub.channel import Channel
from taskwire.hub.outlet import OutletStats
from taskwire.hub.ports import Broker, Load

log = structlog.get_logger(__name__)

RESYNC_RETRY: Final = 1.0
"""Seconds until a topic that could not be read after a loss is tried again."""


class HubStats:
    """Counters for the metrics endpoint."""

    __slots__ = ("deliveries", "events", "observers", "outlets", "resyncs")

    def __init__(self) -> None:
        self.deliveries = 0
        self.events = 0
        self.resyncs = 0
        self.outlets = OutletStats()
        # Called with the seconds from the commit of an ending to the last write of it, if it reached somebody.
        self.observers: list[Callable[[float], None]] = []


class Hub:
    """All channels of this node. Runs on one event loop."""

    def __init__(self, broker: Broker, load: Load) -> None:
        self._broker = broker
        self._load = load
        self._channels: dict[str, Channel] = {}
        self._resync: asyncio.Task[None] | None = None
        self._stale = False
        self.stats = HubStats()

    async def start(self) -> None:
        await self._broker.start(self.deliver, self.resync)

    async def close(self) -> None:
        if self._resync is not None:
            self._resync.cancel()
            await asyncio.gather(self._resync, return_exceptions=True)
        await self._broker.close()

    @property
    def channels(self) -> int:
        return len(self._channels)

    @property
    def subscriptions(self) -> int:
        return sum(channel.count for channel in self._channels.values())

    async def open_topic(self, name: str) -> Channel | None:
        """The channel of a topic, listening and with its state known; None if there is no such topic.

        Listening comes first, then the state is read, so nothing falls between them. The channel is pinned: the caller
        joins or not, without awaiting in between, and then calls ``unpin``.
        """
        channel = await self._open(name, load=True)
        if channel.state is None:
            self.unpin(channel)
            return None
        return channel

    async def open_room(self, name: str) -> Channel:
        """The channel of a room, listening and pinned. Rooms have no state of their own."""
        return await self._open(name, load=False)

    def unpin(self, channel: Channel) -> None:
        channel.pins -= 1
        channel.release()

    async def _open(self, name: str, *, load: bool) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._drop, is_topic=load)
        channel.pins += 1
        try:
            while channel.ready is None or not channel.ready.done():
                if channel.ready is None:
                    await self._prepare(channel, load=load)
                else:
                    # Somebody else is at it. If they fail or are cancelled, the next one tries.
                    await asyncio.wait([channel.ready])
        except BaseException:
            self.unpin(channel)
            raise
        return channel

    async def _prepare(self, channel: Channel, *, load: bool) -> None:
        ready = channel.ready = asyncio.get_running_loop().create_future()
        try:
            await self._broker.listen(channel.name)
            if load:
                loaded = await self._load(channel.name)
                # An event may have come in meanwhile; it is the newer one then.
                if loaded is not None and (channel.state is None or loaded.revision > channel.state.revision):
                    channel.state = loaded
            ready.set_result(None)
        except BaseException:
            channel.ready = None
            ready.cancel()
            raise

    def _drop(self, channel: Channel) -> None:
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            self._broker.unlisten(channel.name)

    def deliver(self, event: Event) -> None:
        """Hand an event to the channels it concerns. Called by the broker, in revision order per topic."""
        channels = self._channels
        deliveries = 0
        for name in (event.topic, *event.rooms):
            if (channel := channels.get(name)) is not None:
                try:
                    deliveries += channel.deliver(event)
                except Exception:  # a fault in one view must not take the other channels' news away
                    log.exception("hub.deliver_failed", channel=name, revision=event.revision)
        stats = self.stats
        stats.events += 1
        if deliveries:
            stats.deliveries += deliveries
            if event.urgency is Urgency.FINAL and event.committed_at:
                elapsed = time.monotonic() - event.committed_at
                for observe in stats.observers:
                    observe(elapsed)

    def resync(self) -> None:
        """News may have been lost: read every open topic anew and deliver what moved."""
        self._stale = True  # also for a reading under way: what it has read already may be old again
        if self._resync is None or self._resync.done():
            self._resync = asyncio.get_running_loop().create_task(self._read_anew(), name="hub-resync")

    async def _read_anew(self) -> None:
        while self._stale:
            self._stale = False
            # Those that are being opened as well: what they are reading may be from before the loss.
            names = [name for name, channel in self._channels.items() if channel.is_topic]
            log.warning("hub.resync", topics=len(names))
            self.stats.resyncs += 1
            for start in range(0, len(names), 500):
                await asyncio.gather(*(self._read_one(name) for name in names[start : start + 500]))

    async def _read_one(self, name: str) -> None:
        while name in self._channels:
            try:
                event = await self._load(name)
            except Exception:
                log.warning("hub.resync_failed", topic=name, exc_info=True)
                await asyncio.sleep(RESYNC_RETRY)
                continue
            channel = self._channels.get(name)
            if event is not None and channel is not None:
                self.stats.deliveries += channel.deliver(event)
            return
