"""One measured stretch of time: how much CPU the server, the load generator and everybody else took."""

import gc
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process import TICKS, ServerProcess, cores


class Window:
    """A context manager. Afterwards ``elapsed`` and ``server`` are seconds, the others shares of a core (0-1).

    ``others`` is what processes that have nothing to do with the measurement took of the server's core; where it is
    not small, latencies say little. The load generator's garbage collector rests meanwhile.
    """

    def __init__(self, process: ServerProcess) -> None:
        self.elapsed = self.server = self.server_load = self.generator_load = self.others = 0.0
        self._process = process

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()
        gc.disable()
        self.start = time.monotonic()
        self._before = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.elapsed = time.monotonic() - self.start
        server, own, busy = (now - then for now, then in zip(self._read(), self._before, strict=True))
        self.server, self.server_load, self.generator_load = server, server / self.elapsed, own / self.elapsed
        self.others = max(0.0, busy - server) / self.elapsed
        gc.enable()
        gc.unfreeze()

    def _read(self) -> tuple[float, float, float]:
        """CPU seconds so far: of the server, of this process, of everything on the server's core."""
        return self._process.cpu_seconds(), time.process_time(), _busy_seconds(min(cores()[0]))


def _busy_seconds(core: int) -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            # user, nice, system, idle, iowait, irq, softirq, steal: all but idle and iowait keep the core from us
            return sum(int(field) for at, field in enumerate(fields[:8]) if at not in (3, 4)) / TICKS
    return 0.0
