"""What a run measured, and the medians and ratios made of it."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.crash import CrashOutcome, CrashPlan
from bench.parts.durable import Load
from bench.parts.durable import Sample as DurableSample
from bench.parts.fanout import Sample as FanoutSample
from bench.parts.fanout import Step
from bench.parts.reconnect import Sample as ReconnectSample

TASKWIRE = "taskwire"


def median(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(values) if values else float("nan")


@dataclass(slots=True)
class Results:
    """All samples by peer key, one per repetition, in order. A part that was not asked for stays empty."""

    labels: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    steps: tuple[Step, ...] = ()
    fanout: dict[str, list[list[FanoutSample]]] = field(default_factory=dict)
    idle_connections: int = 0
    memory: dict[str, list[float]] = field(default_factory=dict)
    load: Load | None = None
    rate: float = 0
    small_batch: int = 0
    durable: list[dict[str, DurableSample]] = field(default_factory=list)
    clients: int = 0
    reconnect: list[dict[str, ReconnectSample]] = field(default_factory=list)
    crash_plan: CrashPlan | None = None
    crash: CrashOutcome | None = None

    def fanout_median(self, peer: str, step: int, value: Callable[[FanoutSample], float]) -> float:
        """Median over the repetitions of one value of one step."""
        return median([value(samples[step]) for samples in self.fanout.get(peer, [])])

    def cpu_ratio(self, peer: str, step: int) -> float:
        """Taskwire's CPU per delivery over a peer's: the median of each repetition's ratio, whose noise is shared."""
        pairs = zip(self.fanout.get(TASKWIRE, []), self.fanout.get(peer, []), strict=False)
        return median([ours[step].cpu_us / theirs[step].cpu_us for ours, theirs in pairs])

    def durable_median(self, run: str, value: Callable[[DurableSample], float]) -> float:
        """Median over the repetitions of one value of part C's run named ``run``."""
        return median([value(samples[run]) for samples in self.durable])

    def reconnect_median(self, run: str, value: Callable[[ReconnectSample], float]) -> float:
        """Median over the repetitions of one value of part D's run named ``run``."""
        return median([value(samples[run]) for samples in self.reconnect])
