"""The broker of a single node: what is published is delivered at once, in this process."""

from collections.abc import Callable, Sequence

from taskwire.core.events import Event


class MemoryBroker:
    """Delivers straight to the local hub (``hub.ports.Broker``). Loses nothing, so it never calls ``lost``."""

    def __init__(self) -> None:
        self._deliver: Callable[[Event], None] | None = None

    async def start(self, deliver: Callable[[Event], None], lost: Callable[[], None]) -> None:
        self._deliver = deliver

    async def close(self) -> None:
        self._deliver = None

    def publish(self, events: Sequence[Event]) -> None:
        if self._deliver is not None:
            for event in events:
                self._deliver(event)

    async def listen(self, channel: str) -> None:
        """Everything published in this process is heard anyway."""

    def unlisten(self, channel: str) -> None:
        """Nothing to stop."""

    async def ping(self) -> None:
        """Always there."""


def create(url: str) -> MemoryBroker:
    return MemoryBroker()
