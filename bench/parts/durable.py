"""Part C: durable updates end to end. Reported in batches over REST, committed, and counted where they arrive."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from bench.load.http import Answer
from bench.load.subscriber import Subscriber
from bench.parts.common import no_garbage_collection, percentile
from bench.parts.fleet import Fleet, fleet
from bench.peers.base import sequence_number
from bench.product import checked

STALL: Final = 5.0
IN_FLIGHT: Final = 4
"""Batches on their way at once. Fewer than the batches of a sweep, so that no two updates of a task are merged."""


@dataclass(frozen=True, slots=True)
class Load:
    """``tasks`` with a watcher each; batches of ``batch`` reports for ``seconds``."""

    tasks: int
    batch: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Updates per second that were delivered, and milliseconds from request sent to message received."""

    per_second: float
    p50_ms: float
    p99_ms: float
    delivered: int
    sent: int
    server_load: float
    generator_load: float


class Recorder:
    """Counts each (task, sweep) once. ``sent`` holds the time at which each batch of a sweep went out."""

    def __init__(self, fleet: Fleet, batch: int) -> None:
        self.sent: dict[tuple[int, int], float] = {}
        self.latencies: list[float] = []
        self.last = 0.0
        self.repeated = 0
        self._batch = batch
        self._newest = [fleet.sweep] * len(fleet.tasks)
        fleet.group.on_message = self._take

    def _take(self, subscriber: Subscriber, message: bytes, now: float) -> None:
        index, sweep = subscriber.index, sequence_number(message)
        sent = self.sent.get((index // self._batch, sweep))
        if sent is None:
            return
        if sweep <= self._newest[index]:
            self.repeated += 1
            return
        self._newest[index] = sweep
        self.latencies.append(now - sent)
        self.last = now


async def measure(load: Load, rate: float, small_batch: int) -> dict[str, Sample]:
    """As fast as it goes, then at ``rate`` updates a second in the same batches, then at that rate in small ones."""
    samples = {}
    async with fleet(load.tasks) as prepared:
        await prepared.group.grow(load.tasks)
        await asyncio.sleep(1)
        await _run(prepared, Load(load.tasks, load.batch, 1.0), 0)
        samples["peak"] = await _run(prepared, load, 0)
        samples["rate"] = await _run(prepared, load, rate)
        samples["rate, small batches"] = await _run(prepared, Load(load.tasks, small_batch, load.seconds), rate)
        if prepared.group.lost:
            raise RuntimeError(f"{prepared.group.lost} watchers lost their connection")
    return samples


async def _run(fleet: Fleet, load: Load, rate: float) -> Sample:
    """One run: at ``rate`` updates a second, or with IN_FLIGHT batches on their way at any time if it is 0."""
    recorder = Recorder(fleet, load.batch)
    batches = load.tasks // load.batch
    answers: deque[asyncio.Future[Answer]] = deque()
    process = fleet.server.process
    number = 0
    with no_garbage_collection():
        start, cpu, own = time.monotonic(), process.cpu_seconds(), time.process_time()
        while True:
            due = start + number * load.batch / rate if rate else time.monotonic()
            if due - start >= load.seconds:
                break
            sweep, part = fleet.sweep + 1 + number // batches, number % batches
            request = fleet.batch(part * load.batch, (part + 1) * load.batch, sweep)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            recorder.sent[part, sweep] = time.monotonic()
            answers.append(fleet.producers[number % len(fleet.producers)].client.send(request))
            number += 1
            while answers and (answers[0].done() or (not rate and len(answers) >= IN_FLIGHT)):
                checked(await answers.popleft())
        sent = number * load.batch
        for answer in answers:
            checked(await answer)
        await _arrive(recorder, sent)
        elapsed = max(recorder.last, start + 1e-9) - start
        cpu, own = process.cpu_seconds() - cpu, time.process_time() - own
    fleet.sweep += -(-number // batches)
    if recorder.repeated:
        raise RuntimeError(f"{recorder.repeated} updates arrived twice or out of order")
    ordered = sorted(recorder.latencies)
    return Sample(
        per_second=len(ordered) / elapsed,
        p50_ms=percentile(ordered, 0.5) * 1e3,
        p99_ms=percentile(ordered, 0.99) * 1e3,
        delivered=len(ordered),
        sent=sent,
        server_load=cpu / elapsed,
        generator_load=own / elapsed,
    )


async def _arrive(recorder: Recorder, sent: int) -> None:
    """Wait for the last delivery, or until nothing has come for a while."""
    begun = time.monotonic()
    while len(recorder.latencies) < sent and time.monotonic() - max(begun, recorder.last) < STALL:
        await asyncio.sleep(0.005)
