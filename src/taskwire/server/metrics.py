"""What ``/metrics`` shows: counters kept as plain numbers on the hot paths, read when Prometheus asks."""

import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from taskwire import __version__
from taskwire.server.runtime import Runtime

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_FINE: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Numbers(Collector):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterable[Metric]:
        runtime = self._runtime
        services, connections = runtime.services, runtime.connections
        hub, writer = services.hub.stats, services.writer.stats
        yield _gauge("connections", "Open WebSocket connections.", connections.open)
        yield _gauge(
            "connections_authenticated", "Logged-in WebSocket connections.", connections.authenticated
        )
        yield _gauge(
            "subscriptions", "Places of connections in channels, rooms included.", services.hub.subscriptions
        )
        yield _gauge("channels", "Channels with a subscriber on this node.", services.hub.channels)
        yield _gauge("writer_backlog", "Changes waiting for a commit.", services.writer.backlog)
        yield _gauge("tasks_running", "Tasks this node works on itself.", services.dispatcher.running)
        yield _gauge(
            "buffered_bytes", "Bytes waiting for slow peers.", sum(c.buffered for c in runtime.sockets)
        )
        yield _count("connections_accepted", "WebSocket connections accepted.", connections.accepted)
        yield _count("events", "Committed events that the hub was given.", hub.events)
        yield _count("deliveries", "Messages handed to subscribers' connections.", hub.deliveries)
        yield _count(
            "conflated", "Progress superseded before a slow connection took it.", hub.outlets.conflated
        )
        yield _count("slow_closed", "Connections closed for being too slow.", hub.outlets.overflows)
        yield _count("resyncs", "Times the hub read its topics anew.", hub.resyncs)
        yield _count("commits", "Group commits.", writer.commits)
        yield _count("commands", "Changes asked for.", writer.commands)
        yield _count("changes", "Changes written.", writer.changes)
        yield _count(
            "commit_failures", "Commits that failed and were tried again or refused.", writer.failures
        )
        refused = CounterMetricFamily("taskwire_refused", "Refusals, by reason.", labels=["reason"])
        for reason, count in connections.refused.items():
            refused.add_metric([reason], count)
        yield refused
        closed = CounterMetricFamily(
            "taskwire_connections_closed", "Connections closed, by code.", labels=["code"]
        )
        for code, count in connections.closed.items():
            closed.add_metric([str(code)], count)
        yield closed
        yield from _process()


def _process() -> Iterator[Metric]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = CounterMetricFamily("process_cpu_seconds", "CPU time of the server process.")
    cpu.add_metric([], usage.ru_utime + usage.ru_stime)
    yield cpu
    rss = GaugeMetricFamily("process_resident_memory_bytes", "Resident memory of the server process.")
    rss.add_metric([], resident_bytes())
    yield rss


def resident_bytes() -> int:
    """Resident memory now; the peak where the system has no ``/proc``."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"taskwire_{name}", text, value=value)


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"taskwire_{name}", text, value=value)


class Metrics:
    """The registry of one node."""

    content_type = CONTENT_TYPE

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._registry = CollectorRegistry()
        self._registry.register(_Numbers(runtime))
        size = Histogram(
            "taskwire_commit_changes", "Changes in one commit.", registry=self._registry,
            buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
        )  # fmt: skip
        seconds = Histogram(
            "taskwire_commit_seconds", "Time of one commit.", registry=self._registry, buckets=_FINE
        )
        write = Histogram(
            "taskwire_commit_to_write_seconds", "From a commit to the last write of its events.",
            registry=self._registry, buckets=_FINE,
        )  # fmt: skip
        terminal = Histogram(
            "taskwire_terminal_delivered_seconds", "From the commit of an ending to the last write of it.",
            registry=self._registry, buckets=_FINE,
        )  # fmt: skip

        def committed(changes: int, elapsed: float, published: float) -> None:
            size.observe(changes)
            seconds.observe(elapsed)
            write.observe(published)

        runtime.services.writer.stats.observers.append(committed)
        runtime.services.hub.stats.observers.append(terminal.observe)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it (``content_type``)."""
        return generate_latest(self._registry)

    def figures(self) -> dict[str, object]:
        """The main figures as JSON, for ``/api/v1/stats``. Times in seconds."""
        runtime = self._runtime
        hub, writer, connections = runtime.services.hub, runtime.services.writer, runtime.connections
        return {
            "version": __version__,
            "uptime": round(time.monotonic() - runtime.started_at, 3),
            "memoryBytes": resident_bytes(),
            "connections": {
                "open": connections.open,
                "authenticated": connections.authenticated,
                "accepted": connections.accepted,
                "closed": {str(code): count for code, count in connections.closed.items()},
                "refused": dict(connections.refused),
            },
            "subscriptions": hub.subscriptions,
            "channels": hub.channels,
            "events": hub.stats.events,
            "deliveries": hub.stats.deliveries,
            "conflated": hub.stats.outlets.conflated,
            "commits": writer.stats.commits,
            "changes": writer.stats.changes,
            "backlog": writer.backlog,
            "running": runtime.services.dispatcher.running,
        }
