"""What several parts share: a running server, quiet garbage collection, percentiles."""

import gc
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load.group import Group
from bench.peers.base import Peer
from bench.process import ServerProcess, cores, free_port

HOST = "127.0.0.1"


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


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the load generator's collector out of a measurement."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0–1) of the sorted values lie; NaN if there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
