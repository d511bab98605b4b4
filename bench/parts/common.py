"""What several parts share: a running server, the arrivals of deliveries, percentiles."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.load.group import Group
from bench.peers.base import Peer
from bench.process import ServerProcess, cores, free_port

HOST: Final = "127.0.0.1"

STALL: Final = 5.0
"""Seconds without any delivery after which missing ones are given up."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started server."""

    process: ServerProcess
    port: int

    def group(self, peer: Peer) -> Group:
        return Group(HOST, self.port, peer.conversation)


@asynccontextmanager
async def running(peer: Peer) -> AsyncIterator[Running]:
    """Start a peer on the server's core in a folder of its own, prepare it, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="taskwire-bench-") as name:
        folder, port = Path(name), free_port()
        command = peer.command(port, folder)
        process = ServerProcess(command.argv, command.env, folder / "server.log", cores()[0], command.cwd)
        try:
            await process.ready(port, peer.ready_path)
            await peer.prepare(port)
            yield Running(process, port)
        finally:
            process.stop()


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0–1) of the sorted values lie; NaN if there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Arrivals:
    """Latencies of deliveries, in seconds, until ``expected`` of them have come."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.last = 0.0
        self._expected = 0
        self._complete = asyncio.Event()

    def add(self, latency: float, now: float) -> None:
        """One more, received at ``now``."""
        self.latencies.append(latency)
        self.last = now
        if len(self.latencies) == self._expected:
            self._complete.set()

    async def wait(self, expected: int) -> None:
        """Wait for the last delivery, or until nothing has come for STALL seconds."""
        self._expected = expected
        begun = time.monotonic()
        while len(self.latencies) < expected:
            try:
                await asyncio.wait_for(self._complete.wait(), STALL)
            except TimeoutError:
                if time.monotonic() - max(begun, self.last) >= STALL:
                    return

    def percentile_ms(self, share: float) -> float:
        """The latency in milliseconds within which ``share`` (0-1) of the deliveries came."""
        return percentile(sorted(self.latencies), share) * 1e3
