"""Many subscribers as one: connect them, wait until all are subscribed, cut them."""

import asyncio
from collections.abc import Callable

from bench.load.subscriber import READY, Conversation, OnMessage, Subscriber


class NotConnected(Exception):
    """Some subscribers did not get as far as their subscription in the time given."""


def ignore(_subscriber: Subscriber, _message: bytes, _now: float) -> None:
    """Take a message in and do nothing with it."""


class Group:
    """Subscribers of one server. ``on_message`` may be set at any time and serves all of them."""

    def __init__(self, host: str, port: int, conversation: Callable[[int], Conversation]) -> None:
        self.members: list[Subscriber] = []
        self.lost = 0
        self.on_message: OnMessage = ignore
        self._host, self._port = host, port
        self._conversation = conversation
        self._open: asyncio.Event = asyncio.Event()
        self._missing = 0

    async def grow(self, size: int, *, parallel: int = 200, time_limit: float = 120) -> None:
        """Connect until there are ``size`` members, ``parallel`` TCP connects at a time, and all of them are READY."""
        first = len(self.members)
        if size <= first:
            return
        self._missing = size - first
        self._open.clear()
        members = [self._new(index) for index in range(first, size)]
        self.members += members
        gate = asyncio.Semaphore(parallel)
        try:
            async with asyncio.timeout(time_limit):
                await asyncio.gather(*(self._connect(member, gate) for member in members))
                await self._open.wait()
        except (TimeoutError, OSError) as error:
            ready = sum(member.stage == READY for member in members)
            codes = sorted({member.close_code for member in members if member.close_code})
            words = next((member.last_words for member in members if member.stage != READY), b"")[:300]
            raise NotConnected(
                f"{ready} of {len(members)} subscribers were ready; {self.lost} lost, close codes {codes}, {error!r}; "
                f"one of the others last heard {words!r}"
            ) from error

    def _new(self, index: int) -> Subscriber:
        member = Subscriber(index, self._conversation(index), self._deliver, self._on_lost)
        member.on_ready = self._on_ready
        return member

    async def _connect(self, member: Subscriber, gate: asyncio.Semaphore) -> None:
        async with gate:
            await asyncio.get_running_loop().create_connection(lambda: member, self._host, self._port)

    def _deliver(self, subscriber: Subscriber, message: bytes, now: float) -> None:
        self.on_message(subscriber, message, now)

    def _on_ready(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._open.set()

    def _on_lost(self, subscriber: Subscriber) -> None:
        if not subscriber.left:
            self.lost += 1

    def cut(self) -> None:
        """Close every connection at once, without a close frame; the group is empty afterwards."""
        for member in self.members:
            member.close()
        self.members = []

    async def close(self) -> None:
        """Reset every connection and wait until the event loop has seen them go."""
        for member in self.members:
            member.abort()
        self.members = []
        await asyncio.sleep(0.05)
