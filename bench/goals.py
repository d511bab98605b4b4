"""The goals of the project, held against a run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.results import TASKWIRE, Results, median

CPU_RATIOS: Final = {"ws": 0.75, "socketio": 0.6, "python-socketio": 0.15, "nchan": 1.05}
"""Most CPU per delivery, as a share of the peer's in the same run."""

MEMORY_KB: Final = 8.0
UPDATES_PER_SECOND: Final = 20_000.0
P99_MS: Final = 50.0
IN_STEP_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: what, how much was wanted, what was measured."""

    what: str
    wanted: str
    measured: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def hit(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """``hit``, or ``missed`` and by how much."""
        if math.isnan(self.value):
            return "not measured"
        if self.hit:
            return "hit"
        return f"missed by {abs(self.value - self.limit) / self.limit:.0%}" if self.limit else "missed"


def goals(results: Results) -> Iterator[Goal]:
    """Every goal that the run says something about."""
    for number, step in enumerate(results.steps):
        for peer, limit in CPU_RATIOS.items():
            if peer in results.fanout and TASKWIRE in results.fanout:
                ratio = results.cpu_ratio(peer, number)
                what = f"CPU per delivery against {results.labels[peer]}, {step.subscribers:,} subscribers"
                yield Goal(what, f"<= {limit:g} x", f"{ratio:.2f} x", ratio, limit)
    if TASKWIRE in results.memory:
        kilobytes = median(results.memory[TASKWIRE]) / 1000
        yield Goal(
            "Memory per idle connection", f"<= {MEMORY_KB:g} KB", f"{kilobytes:.1f} KB", kilobytes, MEMORY_KB
        )
    if results.durable:
        peak = results.durable_median("peak", lambda sample: sample.per_second)
        wanted = f">= {UPDATES_PER_SECOND:,.0f}/s"
        yield Goal(
            "Durable updates delivered", wanted, f"{peak:,.0f}/s", peak, UPDATES_PER_SECOND, at_least=True
        )
        for run in ("rate", "rate, small batches"):
            p99 = results.durable_median(run, lambda sample: sample.p99_ms)
            batch = results.small_batch if run != "rate" else results.load.batch if results.load else 0
            what = f"p99 from report to delivery at {results.rate:,.0f}/s, batches of {batch:,}"
            yield Goal(what, f"< {P99_MS:g} ms", f"{p99:.1f} ms", p99, P99_MS)
    for run, event in (("cut", "their sockets were cut"), ("restart", "a restarted server was ready")):
        if results.reconnect:
            seconds = results.reconnect_median(run, lambda sample: sample.all)
            what = f"{results.clients:,} clients in step after {event}"
            yield Goal(what, f"< {IN_STEP_SECONDS:g} s", f"{seconds:.2f} s", seconds, IN_STEP_SECONDS)
    if results.crash is not None:
        broken = len(results.crash.violations) + results.crash.more_violations
        yield Goal("Promises broken under kill -9", "0", str(broken), broken, 0)
