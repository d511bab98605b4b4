"""Runs one worker process: starts it, talks with it over its pipes, logs what it prints, kills it."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, Self

MAX_LINE = 1 << 16  # bytes of one line from a worker
_DYING = 1.0  # seconds that a process gets from closing its output to being gone
_LOGGED = 4096  # bytes of a worker's stderr that are logged at a time

_log = logging.getLogger(__name__)


class WorkerLost(Exception):
    """The worker is gone, hangs, or no longer makes sense."""

    def __init__(self, *, stalled: bool = False) -> None:
        super().__init__()
        self.stalled = stalled


class WorkerProcess:
    """One worker process and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._log = asyncio.create_task(self._drain_stderr())

    @classmethod
    async def spawn(cls, arguments: Sequence[str]) -> Self:
        # -P: a file of the working directory must not stand in for a library.
        command = (sys.executable, "-P", "-m", "taskwire.providers.render.worker", *arguments)
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=pipe, limit=MAX_LINE
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for the signal that ended it; None while it runs."""
        return self._process.returncode

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and not self._stdout.at_eof()

    def write(self, line: bytes) -> None:
        # Not drained: one bounded line per job, and a worker that does not take it is found out by the stall timeout.
        self._stdin.write(line)

    async def read(self) -> Any:
        """Return the next event; raise WorkerLost if there is none."""
        try:
            line = await self._stdout.readline()
            if not line.endswith(b"\n"):
                raise WorkerLost
            return json.loads(line)
        except (ValueError, OSError):  # over-long or not JSON; a broken pipe
            raise WorkerLost from None

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """Kill the process; return when it is gone and what it printed was logged."""
        if self._stdout.at_eof():
            # It ended by itself. Popen.kill() would fetch the exit status and so take it from asyncio's watcher.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DYING):
                    await self._process.wait()
        self.kill()
        self._stdin.close()
        await self._process.wait()
        await self._log

    async def _drain_stderr(self) -> None:
        """Log what the worker and its libraries print; nobody waits for a full pipe."""
        with contextlib.suppress(OSError):
            while data := await self._stderr.read(_LOGGED):
                _log.warning("render worker %d: %s", self.pid, data.decode(errors="replace").rstrip())
