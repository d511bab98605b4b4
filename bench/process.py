"""Server processes: started on their own core, asked for CPU time and memory, stopped by their process group."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from bench.load.http import HttpClient, request_bytes

TICKS: Final = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED: Final = 2
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class DidNotStart(Exception):
    """A server that ended or did not answer in time; carries the end of its log."""


@cache
def cores() -> tuple[set[int], set[int]]:
    """(the server's core, the load generator's cores), of those this process may use when it first asks.

    With a single core both share it.
    """
    free = sorted(os.sched_getaffinity(0))
    return {free[0]}, set(free[1:]) or {free[0]}


def raise_file_limit() -> int:
    """Allow as many open files as the hard limit has; children inherit it. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A server and all its children. Output goes to ``log``."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        pin: set[int] | None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            pinned = (
                ["taskset", "-c", ",".join(map(str, sorted(pin)))] if pin else []
            )  # replaced by the command: same id
            self._popen = subprocess.Popen(
                [*pinned, *command], env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=cwd, start_new_session=True,
            )  # fmt: skip
        self.pid = self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    async def ready(self, port: int, path: str, time_limit: float = 60) -> None:
        """Wait until ``GET path`` answers 200. Raises DidNotStart."""
        deadline = time.monotonic() + time_limit
        while time.monotonic() < deadline:
            if not self.running:
                raise DidNotStart(f"the server ended with code {self._popen.returncode}:\n{self.log_end()}")
            try:
                client = await HttpClient.connect("127.0.0.1", port)
                try:
                    if (await client.send(request_bytes("GET", path))).status == 200:
                        return
                finally:
                    client.close()
            except OSError:
                pass
            await asyncio.sleep(0.02)
        raise DidNotStart(f"{path} did not answer 200 within {time_limit} s:\n{self.log_end()}")

    def log_end(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def _tree(self) -> list[int]:
        found, at = [self.pid], 0
        while at < len(found):
            for listing in Path(f"/proc/{found[at]}/task").glob("*/children"):
                try:
                    found += [int(child) for child in listing.read_text().split()]
                except OSError:
                    continue
            at += 1
        return found

    def cpu_seconds(self) -> float:
        """User and system time of the process and its living children: utime + stime, but exact to the nanosecond."""
        total = 0.0
        for pid in self._tree():
            try:
                # The CPU clock of another process, as clock_getcpuclockid(3) numbers it.
                total += time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
            except OSError:
                continue
        return total

    def memory_bytes(self) -> int:
        """Resident memory of the process and its children."""
        pages = 0
        for pid in self._tree():
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return pages * PAGE

    def kill(self) -> None:
        """``kill -9`` of the server process alone, as the out-of-memory killer does it."""
        if self.running:
            self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    def stop(self, grace: float = 5) -> None:
        """End the server: politely, and after ``grace`` seconds its whole process group by force."""
        if self.running:
            self._popen.terminate()
            try:
                self._popen.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._popen.wait()
