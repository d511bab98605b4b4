"""``python -m bench.run``: measures Taskwire beside its peers in one run and holds the result against the goals."""

import argparse
import datetime
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import uvloop

from bench import machine, report
from bench.crash import CrashPlan, check
from bench.goals import goals
from bench.parts import durable, fanout, memory, reconnect
from bench.peers import PEERS
from bench.peers.base import Peer
from bench.process import cores, raise_file_limit
from bench.results import TASKWIRE, Results

T = TypeVar("T")

PARTS: Final = ("fanout", "memory", "durable", "reconnect", "crash")
SIDE_BY_SIDE: Final = {"fanout", "memory"}
"""The parts that the peers take part in; the others ask for things that only Taskwire does."""

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
DEFAULT_MESSAGE_BYTES: Final = 256
"""Size of the peers' messages when Taskwire, whose size they otherwise take, is not measured."""


class Run:
    """One run: the peers that can run here, the options, and what has been measured so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.quick: bool = options.quick
        self.repeats: int = options.repeat
        self.seed: int = options.seed
        self.results = Results()
        self.peers: list[type[Peer]] = []
        beside = set(options.only or PARTS) & SIDE_BY_SIDE
        for peer in PEERS:
            if (options.peers and peer.key not in options.peers) or (not beside and peer.key != TASKWIRE):
                continue
            self.results.labels[peer.key] = peer.label
            if reason := peer.missing():
                self.results.skipped[peer.key] = reason
                print(f"{peer.label} is skipped: {reason}")
            else:
                self.results.versions[peer.key] = peer.version()
                self.peers.append(peer)
        self.message_bytes = DEFAULT_MESSAGE_BYTES

    @property
    def has_taskwire(self) -> bool:
        return TASKWIRE in self.results.versions

    async def guarded(self, what: str, measure: Callable[[], Awaitable[T]]) -> T | None:
        """Measure; a failure is noted, and the run goes on without the value."""
        print(f"  {what} …", flush=True)
        try:
            return await measure()
        except Exception as error:  # noqa: BLE001 - one server's failure must not cost the other results
            lines = str(error).splitlines() or [""]
            short = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
            self.results.failures.append(f"{what}: {type(error).__name__}: {short}")
            print(f"  {what} failed: {error}")
            return None

    async def fanout(self) -> None:
        """Part A, with as many deliveries in both steps: at 20 messages/s to 5,000, most peers could not follow."""
        seconds = 3.0 if self.quick else 10.0
        self.results.steps = (fanout.Step(1000, 20, seconds), fanout.Step(5000, 4, seconds))
        for repeat in range(self.repeats):
            for peer in self.peers:
                what = f"fan-out {repeat + 1}: {peer.label}"
                work = partial(fanout.measure, peer(self.message_bytes), self.results.steps)
                samples = await self.guarded(what, work)
                if samples is not None:
                    self.results.fanout.setdefault(peer.key, []).append(samples)
                    if peer.key == TASKWIRE:
                        self.message_bytes = round(samples[0].message_bytes)

    async def memory(self) -> None:
        """Part B."""
        self.results.idle_connections = 1000 if self.quick else 8000
        for repeat in range(self.repeats):
            for peer in self.peers:
                what = f"memory {repeat + 1}: {peer.label}"
                work = partial(memory.measure, peer(self.message_bytes), self.results.idle_connections)
                value = await self.guarded(what, work)
                if value is not None:
                    self.results.memory.setdefault(peer.key, []).append(value)

    async def durable(self) -> None:
        """Part C."""
        load = durable.Load(tasks=5000, batch=1000, seconds=2.0 if self.quick else 8.0)
        self.results.load, self.results.rate, self.results.small_batch = load, 20_000.0, 250
        for repeat in range(self.repeats):
            samples = await self.guarded(
                f"durable {repeat + 1}",
                lambda: durable.measure(load, self.results.rate, self.results.small_batch),
            )
            if samples is not None:
                self.results.durable.append(samples)

    async def reconnect(self) -> None:
        """Part D."""
        self.results.clients = 1000 if self.quick else 5000
        for repeat in range(self.repeats):
            samples = await self.guarded(
                f"reconnect {repeat + 1}", lambda: reconnect.measure(self.results.clients)
            )
            if samples is not None:
                self.results.reconnect.append(samples)

    async def crash(self) -> None:
        """Part E."""
        plan = (
            CrashPlan(tasks=40, subscribers=100, kills=3, seed=self.seed)
            if self.quick
            else CrashPlan(seed=self.seed)
        )
        self.results.crash_plan = plan
        self.results.crash = await self.guarded("crash", lambda: check(plan, cores()[0]))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument(
        "--only", metavar="PART[,PART…]", help=f"parts to run: {', '.join(PARTS)}", default=""
    )
    parser.add_argument(
        "--peers", metavar="KEY[,KEY…]", help=f"of {', '.join(p.key for p in PEERS)}", default=""
    )
    parser.add_argument("--repeat", type=int, help="repetitions, interleaved over the servers (default 3)")
    parser.add_argument(
        "--quick", action="store_true", help="short windows and small numbers, one repetition"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the crash check")
    parser.add_argument("--date", default="", help="date for the results (default: today)")
    parser.add_argument(
        "--output", type=Path, help="where to write them (default: bench/RESULTS.md, for a whole run)"
    )
    options = parser.parse_args(arguments)
    options.only = [part for part in options.only.split(",") if part]
    options.peers = [peer for peer in options.peers.split(",") if peer]
    for name, given, known in (
        ("--only", options.only, PARTS),
        ("--peers", options.peers, [p.key for p in PEERS]),
    ):
        if unknown := set(given) - set(known):
            parser.error(f"{name}: unknown {', '.join(sorted(unknown))}; wanted of {', '.join(known)}")
    options.repeat = options.repeat or (1 if options.quick else 3)
    return options


async def _measure(run: Run, parts: Sequence[str]) -> None:
    for part in parts:
        if part in ("durable", "reconnect", "crash") and not run.has_taskwire:
            continue
        print(f"{part}:")
        await getattr(run, part)()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write. Returns 1 if something could not be measured or a promise was broken, else 0."""
    options = _options(arguments)
    files = raise_file_limit()
    server_core, load_cores = cores()
    run = Run(options)
    if not run.peers:
        print("There is no server to measure.")
        return 1
    os.sched_setaffinity(0, load_cores)
    uvloop.run(_measure(run, options.only or PARTS))
    os.sched_setaffinity(0, server_core | load_cores)
    date = options.date or datetime.datetime.now(datetime.UTC).date().isoformat()
    how = (" --quick" if options.quick else "") + (
        f" --only {','.join(options.only)}" if options.only else ""
    )
    text = report.document(run.results, date, machine.describe(files), options.repeat, how)
    print("\n" + text)
    whole = not (options.only or options.peers or options.quick)
    if output := options.output or (RESULTS if whole else None):
        output.write_text(text)
        print(f"written to {output}")
    missed = [goal.what for goal in goals(run.results) if not goal.hit]
    print(f"{len(missed)} goal(s) missed" + (": " + "; ".join(missed) if missed else ""))
    broken = run.results.crash is not None and run.results.crash.violations
    return 1 if run.results.failures or broken else 0


if __name__ == "__main__":
    sys.exit(main())
