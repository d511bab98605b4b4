"""Part D: all clients come back at once. Time until each has login, subscription and the newest state again."""

import time
from dataclasses import dataclass, replace

from bench.load.group import Group
from bench.parts.common import percentile
from bench.parts.fleet import Fleet, fleet
from bench.peers.base import Command, sequence_number
from bench.peers.taskwire import Taskwire
from bench.process import ServerProcess, cores
from bench.product import checked
from bench.window import Window


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds until half, and until all clients were in step; for a restart also until the server was ready.

    ``cpu_ms`` is the server's CPU time per client in milliseconds, ``others`` as in ``Window``.
    """

    half: float
    all: float
    ready: float = 0.0
    others: float = 0.0
    cpu_ms: float = 0.0


async def measure(clients: int) -> dict[str, Sample]:
    """``cut``: the clients' sockets are cut, the server lives on. ``restart``: ``kill -9`` and a new start."""
    samples = {}
    async with fleet(clients) as prepared:
        await prepared.group.grow(clients)
        await _report_all(prepared)
        samples["cut"] = await _cut(prepared, clients)
        await _report_all(prepared)
        samples["restart"] = await _restart(prepared, clients)
    return samples


async def _report_all(prepared: Fleet) -> None:
    """One update of every task, so that a snapshot can be told from an older one."""
    prepared.sweep += 1
    for begin in range(0, len(prepared.tasks), 1000):
        request = prepared.batch(begin, begin + 1000, prepared.sweep)
        checked(await prepared.producers[0].client.send(request))


async def _cut(prepared: Fleet, clients: int) -> Sample:
    with Window(prepared.server.process) as window:
        prepared.group.cut()
        sample = await _come_back(prepared, clients, window.start)
    return replace(sample, others=window.others, cpu_ms=window.server / clients * 1e3)


async def _restart(prepared: Fleet, clients: int) -> Sample:
    server, peer = prepared.server, Taskwire(0)
    command: Command = peer.command(server.port, server.process.log.parent)
    start = time.monotonic()
    server.process.kill()
    prepared.group.cut()
    again = ServerProcess(command.argv, command.env, server.process.log, cores()[0], command.cwd)
    try:
        await again.ready(server.port, peer.ready_path)
        with Window(again) as window:
            sample = await _come_back(prepared, clients, window.start)
        await prepared.group.close()
        return replace(
            sample, ready=window.start - start, others=window.others, cpu_ms=window.server / clients * 1e3
        )
    finally:
        again.stop()


async def _come_back(prepared: Fleet, clients: int, start: float) -> Sample:
    group: Group = prepared.group
    prepared.watchers.clear()
    await group.grow(clients, parallel=clients)
    behind = sum(sequence_number(watcher.snapshot) != prepared.sweep for watcher in prepared.watchers)
    if behind or group.lost:
        raise RuntimeError(f"{behind} clients were given an older state, {group.lost} were lost")
    times = sorted(member.ready_at - start for member in group.members)
    return Sample(percentile(times, 0.5), times[-1])
