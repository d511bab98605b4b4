"""Part A: one message to many subscribers. CPU time of the server per delivery, and latency."""

import asyncio
import time
from dataclasses import dataclass

from bench.load.group import Group
from bench.load.http import HttpClient
from bench.load.subscriber import Subscriber
from bench.parts.common import HOST, Running, no_garbage_collection, percentile, running
from bench.peers.base import Peer, sequence_number

SETTLE = 1.0
"""Seconds between the last connect and the first message."""

STALL = 5.0
"""Seconds without any delivery after which missing ones are given up."""


@dataclass(frozen=True, slots=True)
class Step:
    """One load: ``subscribers`` of one channel, ``rate`` messages a second for ``seconds``."""

    subscribers: int
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. CPU in microseconds per delivery, latency in milliseconds, utilisations as shares of a core."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    delivered: int
    expected: int
    message_bytes: float
    server_load: float
    generator_load: float

    @property
    def saturated(self) -> bool:
        """Whether the server had no time left, so that its latency says only how long the run was."""
        return self.server_load > 0.95


class Recorder:
    """Counts deliveries and their latency. ``sent`` holds the time at which each message was published."""

    def __init__(self, group: Group) -> None:
        self.sent: dict[int, float] = {}
        self.latencies: list[float] = []
        self.bytes = 0
        self.last = 0.0
        group.on_message = self._take

    def _take(self, _subscriber: Subscriber, message: bytes, now: float) -> None:
        sent = self.sent.get(sequence_number(message))
        if sent is not None:
            self.latencies.append(now - sent)
            self.bytes += len(message)
            self.last = now


async def measure(peer: Peer, steps: tuple[Step, ...]) -> list[Sample]:
    """Start the server once and go through ``steps``, which must grow in subscribers."""
    samples = []
    async with running(peer) as server:
        group = server.group(peer)
        for step in steps:
            await group.grow(step.subscribers)
            await asyncio.sleep(SETTLE)
            await _publish(server, peer, group, Step(step.subscribers, step.rate, 1.0))
            samples.append(await _publish(server, peer, group, step))
        if group.lost:
            raise RuntimeError(f"{peer.label} lost {group.lost} connections")
        await group.close()
    return samples


async def _publish(server: Running, peer: Peer, group: Group, step: Step) -> Sample:
    publisher = await HttpClient.connect(HOST, server.port)
    recorder = Recorder(group)
    count = max(1, round(step.rate * step.seconds))
    with no_garbage_collection():
        start, cpu, own = time.monotonic(), server.process.cpu_seconds(), time.process_time()
        answers = []
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / step.rate - time.monotonic()))
            request = peer.publication(number)
            recorder.sent[number] = time.monotonic()
            answers.append(publisher.send(request))
        expected = count * step.subscribers
        await _arrive(recorder, expected)
        elapsed = time.monotonic() - start
        cpu, own = server.process.cpu_seconds() - cpu, time.process_time() - own
    statuses = {answer.status for answer in await asyncio.gather(*answers)}
    publisher.close()
    if any(status >= 300 for status in statuses):
        raise RuntimeError(f"{peer.label} refused messages: status {statuses}")
    delivered = len(recorder.latencies)
    ordered = sorted(recorder.latencies)
    return Sample(
        cpu_us=cpu / max(1, delivered) * 1e6,
        p50_ms=percentile(ordered, 0.5) * 1e3,
        p99_ms=percentile(ordered, 0.99) * 1e3,
        delivered=delivered,
        expected=expected,
        message_bytes=recorder.bytes / max(1, delivered),
        server_load=cpu / elapsed,
        generator_load=own / elapsed,
    )


async def _arrive(recorder: Recorder, expected: int) -> None:
    """Wait for the last delivery, or until nothing has come for a while."""
    begun = time.monotonic()
    while len(recorder.latencies) < expected and time.monotonic() - max(begun, recorder.last) < STALL:
        await asyncio.sleep(0.005)
