"""Part A: one message to many subscribers. CPU time of the server per delivery, and latency."""

import asyncio
import time
from dataclasses import dataclass

from bench.load.group import Group
from bench.load.http import HttpClient
from bench.load.subscriber import Subscriber
from bench.parts.common import HOST, Arrivals, Running, running
from bench.peers.base import Peer, sequence_number
from bench.window import Window

SETTLE = 1.0
"""Seconds between the last connect and the first message."""


WARM_UP = 2.0
"""Seconds of publishing that are not counted."""


@dataclass(frozen=True, slots=True)
class Step:
    """One load: ``subscribers`` of one channel, ``rate`` messages a second for ``seconds``."""

    subscribers: int
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. CPU in microseconds per delivery, latency in milliseconds, utilisations as shares of a core.

    ``behind`` is the time in seconds from the last publication to the last delivery. Where it is long, the server could
    not follow, and its latencies tell the length of the queue.
    """

    cpu_us: float
    p50_ms: float
    p99_ms: float
    delivered: int
    expected: int
    message_bytes: float
    server_load: float
    generator_load: float
    others: float
    behind: float


class Recorder(Arrivals):
    """Latencies by sequence number. ``sent`` holds the time at which each message was published."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.sent: dict[int, float] = {}
        self.bytes = 0
        group.on_message = self._take

    def _take(self, _subscriber: Subscriber, message: bytes, now: float) -> None:
        sent = self.sent.get(sequence_number(message))
        if sent is not None:
            self.bytes += len(message)
            self.add(now - sent, now)


async def measure(peer: Peer, steps: tuple[Step, ...]) -> list[Sample]:
    """Start the server once and go through ``steps``, which must grow in subscribers."""
    samples = []
    async with running(peer) as server:
        group = server.group(peer)
        for number, step in enumerate(steps):
            await group.grow(step.subscribers)
            await asyncio.sleep(SETTLE)
            first = number * 100_000
            await _publish(server, peer, group, Step(step.subscribers, step.rate, WARM_UP), first)
            samples.append(await _publish(server, peer, group, step, first + 50_000))
        if group.lost:
            raise RuntimeError(f"{peer.label} lost {group.lost} connections")
        await group.close()
    return samples


async def _publish(server: Running, peer: Peer, group: Group, step: Step, first: int) -> Sample:
    """Publish with numbers from ``first`` on; no number comes twice, since saying a thing again changes nothing."""
    publisher = await HttpClient.connect(HOST, server.port)
    recorder = Recorder(group)
    count = max(1, round(step.rate * step.seconds))
    with Window(server.process) as window:
        answers = []
        for number in range(count):
            await asyncio.sleep(max(0.0, window.start + number / step.rate - time.monotonic()))
            request = peer.publication(first + number)
            recorder.sent[first + number] = time.monotonic()
            answers.append(publisher.send(request))
        expected = count * step.subscribers
        await recorder.wait(expected)
    statuses = {answer.status for answer in await asyncio.gather(*answers)}
    publisher.close()
    if any(status >= 300 for status in statuses):
        raise RuntimeError(f"{peer.label} refused messages: status {statuses}")
    delivered = len(recorder.latencies)
    return Sample(
        cpu_us=window.server / max(1, delivered) * 1e6,
        p50_ms=recorder.percentile_ms(0.5),
        p99_ms=recorder.percentile_ms(0.99),
        delivered=delivered,
        expected=expected,
        message_bytes=recorder.bytes / max(1, delivered),
        server_load=window.server_load,
        generator_load=window.generator_load,
        others=window.others,
        behind=recorder.last - max(recorder.sent.values()),
    )
