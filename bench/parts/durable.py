"""Part C: durable updates end to end. Reported in batches over REST, committed, and counted where they arrive."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from bench.load.http import Answer
from bench.load.subscriber import Subscriber
from bench.parts.common import Arrivals
from bench.parts.fleet import Fleet, fleet
from bench.peers.base import sequence_number
from bench.product import checked
from bench.window import Window

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
    others: float


class Recorder(Arrivals):
    """Counts each (task, sweep) once. ``sent`` holds the time at which each batch of a sweep went out."""

    def __init__(self, fleet: Fleet, batch: int) -> None:
        super().__init__()
        self.sent: dict[tuple[int, int], float] = {}
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
        self.add(now - sent, now)


async def measure(load: Load, rate: float, small_batch: int) -> dict[str, Sample]:
    """As fast as it goes, then at ``rate`` updates a second in the same batches, then at that rate in small ones."""
    samples = {}
    async with fleet(load.tasks) as prepared:
        await prepared.group.grow(load.tasks)
        await asyncio.sleep(1)
        await _run(prepared, Load(load.tasks, load.batch, 1.0), 0)
        samples["peak"] = await _run(prepared, load, 0)
        samples["rate"] = await _run(prepared, load, rate)
        samples["rate, small batches"] = await _run(
            prepared, Load(load.tasks, small_batch, load.seconds), rate
        )
        if prepared.group.lost:
            raise RuntimeError(f"{prepared.group.lost} watchers lost their connection")
    return samples


async def _run(fleet: Fleet, load: Load, rate: float) -> Sample:
    """One run: at ``rate`` updates a second, or with IN_FLIGHT batches on their way at any time if it is 0."""
    recorder = Recorder(fleet, load.batch)
    batches = load.tasks // load.batch
    answers: deque[asyncio.Future[Answer]] = deque()
    number = 0
    with Window(fleet.server.process) as window:
        while True:
            due = window.start + number * load.batch / rate if rate else time.monotonic()
            if due - window.start >= load.seconds:
                break
            sweep, part = fleet.sweep + 1 + number // batches, number % batches
            request = fleet.batch(part * load.batch, (part + 1) * load.batch, sweep)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            recorder.sent[part, sweep] = time.monotonic()
            answers.append(fleet.producers[number % len(fleet.producers)].client.send(request))
            number += 1
            while answers and (answers[0].done() or (not rate and len(answers) >= IN_FLIGHT)):
                accepted(await answers.popleft())
        sent = number * load.batch
        for answer in answers:
            accepted(await answer)
        await recorder.wait(sent)
    fleet.sweep += -(-number // batches)
    if recorder.repeated:
        raise RuntimeError(f"{recorder.repeated} updates arrived twice or out of order")
    return Sample(
        per_second=len(recorder.latencies) / max(recorder.last - window.start, 1e-9),
        p50_ms=recorder.percentile_ms(0.5),
        p99_ms=recorder.percentile_ms(0.99),
        delivered=len(recorder.latencies),
        sent=sent,
        server_load=window.server_load,
        generator_load=window.generator_load,
        others=window.others,
    )


def accepted(answer: Answer) -> None:
    """Raise unless every report of a batch was applied."""
    wrong = [outcome for outcome in checked(answer)["outcomes"] if outcome.get("outcome") != "applied"]
    if wrong:
        raise RuntimeError(f"{len(wrong)} reports were not applied, the first: {wrong[0]}")
