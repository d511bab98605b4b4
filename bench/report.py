"""The run as text: Markdown tables that read well on a terminal too."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from bench.goals import goals
from bench.results import TASKWIRE, Results, median

BEHIND: Final = 2.0
"""Seconds between the last message published and the last one delivered from which on a server could not follow."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; the first column is text, the others are numbers."""
    widths = [max(3, *(len(row[at]) for row in (head, *rows))) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join((first, *rest)) + " |"

    rule = [("-" * (width - 1) + ":") if at else "-" * width for at, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *(line(row) for row in rows)])


def document(results: Results, date: str, machine: Sequence[str], repeats: int, options: str) -> str:
    """The whole of RESULTS.md."""
    parts = [
        "# Results of the bench",
        f"Measured {date}, {repeats} repetition(s){options}; medians. What each part does: [README.md](README.md).",
        "\n".join(f"- {line}" for line in machine),
        "\n".join(f"- {results.labels[peer]}: {version}" for peer, version in results.versions.items()),
        *sections(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def sections(results: Results) -> Iterator[str]:
    """A heading and a table for each part that was measured, and the goals."""
    verdicts = [(goal.what, goal.wanted, goal.measured, goal.verdict) for goal in goals(results)]
    if verdicts:
        yield "## Goals\n\n" + table(("goal", "wanted", "measured", ""), verdicts)
    if results.fanout:
        yield "## A. Fan-out: one message to many subscribers\n\n" + _fanout(results)
    if results.memory:
        yield "## B. Memory of the server per idle, subscribed connection\n\n" + _memory(results)
    if results.durable:
        yield "## C. Durable updates: reported in batches, committed, delivered\n\n" + _durable(results)
    if results.reconnect:
        yield "## D. Everybody comes back at once\n\n" + _reconnect(results)
    if results.crash is not None:
        yield "## E. kill -9 at random moments\n\n" + _crash(results)
    notes = [f"- {results.labels[peer]} was skipped: {reason}" for peer, reason in results.skipped.items()]
    notes += [f"- failed: {failure}" for failure in results.failures]
    if notes:
        yield "## Not measured\n\n" + "\n".join(notes)


def _fanout(results: Results) -> str:
    pieces = []
    beside = TASKWIRE in results.fanout
    for number, step in enumerate(results.steps):
        rows = []
        for peer in results.fanout:

            def value(name: str, peer: str = peer, number: int = number) -> float:
                return results.fanout_median(peer, number, lambda sample: float(getattr(sample, name)))

            ratio = f"{results.cpu_ratio(peer, number):.2f}" if beside and peer != TASKWIRE else ""
            lost = 1 - value("delivered") / value("expected")
            remarks = [f"{lost:.1%} not delivered"] if lost else []
            if (behind := value("behind")) > BEHIND:
                remarks.append(f"could not follow: {behind:.0f} s behind at the end")
            rows.append(
                (
                    results.labels[peer], f"{value('cpu_us'):.2f}", ratio, f"{value('p50_ms'):.1f}",
                    f"{value('p99_ms'):.1f}", f"{value('message_bytes'):.0f}", f"{value('server_load'):.0%}",
                    f"{value('generator_load'):.0%}", f"{value('others'):.0%}", ", ".join(remarks),
                )
            )  # fmt: skip
        pieces.append(f"{step.subscribers:,} subscribers, {step.rate:g} messages/s for {step.seconds:g} s:")
        head = (
            "server", "CPU us/delivery", "Taskwire / it", "p50 ms", "p99 ms", "bytes", "server core", "load core",
            "others",
            "",
        )  # fmt: skip
        pieces.append(table(head, rows))
    return "\n\n".join(pieces)


def _memory(results: Results) -> str:
    rows = [(results.labels[peer], f"{median(values) / 1000:.1f}") for peer, values in results.memory.items()]
    return f"{results.idle_connections:,} connections:\n\n" + table(("server", "KB/connection"), rows)


def _durable(results: Results) -> str:
    assert results.load is not None
    names = {
        "peak": f"as fast as it goes, batches of {results.load.batch:,}",
        "rate": f"at {results.rate:,.0f}/s, batches of {results.load.batch:,}",
        "rate, small batches": f"at {results.rate:,.0f}/s, batches of {results.small_batch:,}",
    }
    rows = []
    for run, name in names.items():

        def value(field: str, run: str = run) -> float:
            return results.durable_median(run, lambda sample: float(getattr(sample, field)))

        rows.append(
            (
                name, f"{value('per_second'):,.0f}", f"{value('p50_ms'):.1f}", f"{value('p99_ms'):.1f}",
                f"{value('delivered') / value('sent'):.1%}", f"{value('server_load'):.0%}",
                f"{value('generator_load'):.0%}", f"{value('others'):.0%}",
            )
        )  # fmt: skip
    head = ("run", "delivered/s", "p50 ms", "p99 ms", "delivered", "server core", "load core", "others")
    return f"{results.load.tasks:,} tasks with one watcher each:\n\n" + table(head, rows)


def _reconnect(results: Results) -> str:
    rows = []
    for run, name in (
        ("cut", "sockets cut, server lives on"),
        ("restart", "kill -9 and start, from ready on"),
    ):
        half, every = (
            results.reconnect_median(run, lambda s: s.half),
            results.reconnect_median(run, lambda s: s.all),
        )
        ready, others = (
            results.reconnect_median(run, lambda s: s.ready),
            results.reconnect_median(run, lambda s: s.others),
        )
        cpu = f"{results.reconnect_median(run, lambda s: s.cpu_ms):.2f}"
        rows.append(
            (name, f"{half:.2f}", f"{every:.2f}", f"{ready:.2f}" if ready else "", cpu, f"{others:.0%}")
        )
    head = ("", "half in step, s", "all in step, s", "kill to ready, s", "CPU ms/client", "others")
    return f"{results.clients:,} clients, a task each:\n\n" + table(head, rows)


def _crash(results: Results) -> str:
    outcome, plan = results.crash, results.crash_plan
    assert outcome is not None
    assert plan is not None
    facts = replace(outcome, violations=[])
    words = (
        f"{plan.tasks} reported tasks and {plan.renders} local renders, {plan.subscribers} subscribers of "
        f"{plan.tasks_per_subscriber} tasks each, seed {plan.seed}: {facts.kills} kills and {facts.kills_during_start} "
        f"more during a start. {facts.reports:,} reports acknowledged, {facts.retried:,} sent again; "
        f"{facts.messages:,} messages over {facts.connections:,} connections checked; ends: "
        + ", ".join(f"{count} {status}" for status, count in sorted(facts.ends.items()))
        + f"; {facts.attempts} attempts in all."
    )
    broken = [f"- {violation}" for violation in outcome.violations]
    if outcome.more_violations:
        broken.append(f"- and {outcome.more_violations} more")
    return "\n".join([*textwrap.wrap(words, 118), "", *(broken or ["No promise was broken."])])
