"""A pool of render workers: runs each job in a warm process, reports its progress, and really stops it on cancellation.

::

    RenderFailed              a job ended without a video; `code` says why
        RENDERER_CRASHED      the worker process died (retryable)
        RENDERER_STALLED      the worker said nothing for `stall_timeout` and was killed (retryable)
        RENDERER_STOPPED      the pool was closed (retryable)
        RENDERER_UNAVAILABLE  no worker process could be started (retryable)
        STORAGE_FULL, STORAGE_UNAVAILABLE, RENDER_OUT_OF_MEMORY, RENDER_FAILED, INVALID_JOB
                              reported by the worker
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import THUMBNAIL, VIDEO, remove_part_files
from .process import WorkerLost, WorkerProcess

MAX_JOB = 1 << 20  # bytes of a job as JSON; the worker's own limit

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RenderJob:
    """What to render: even sizes in pixels, length in seconds, frames per second; the files go into `directory`."""

    id: str
    prompt: str
    width: int
    height: int
    fps: int
    seconds: float
    directory: Path


@dataclass(frozen=True, slots=True)
class RenderProgress:
    """Frames encoded so far, of how many, and the measured speed in frames per second (0 before the first)."""

    frame: int
    frames: int
    fps: float

    @property
    def fraction(self) -> float:
        """The part that is done, 0..1."""
        return self.frame / self.frames

    @property
    def remaining(self) -> float | None:
        """Seconds to the end at the measured speed; None before there is one."""
        return (self.frames - self.frame) / self.fps if self.fps > 0 else None


@dataclass(frozen=True, slots=True)
class RenderResult:
    """The finished files and what was measured of the video: seconds, bytes, pixels, frames, codec."""

    video: Path
    thumbnail: Path
    duration: float
    file_size: int
    width: int
    height: int
    frames: int
    codec: str

    @property
    def resolution(self) -> str:
        return f"{self.width}x{self.height}"


class RenderFailed(Exception):
    """A job ended without a video: a stable `code`, a `message` for people, and whether trying again may help."""

    def __init__(
        self, code: str, message: str, details: Mapping[str, Any] | None = None, *, retryable: bool = True
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details
        self.retryable = retryable


class RenderPool:
    """Up to `workers` renders side by side; more wait in the order they came.

    `nice`: how far workers step back behind the server. `threads`: encoder threads per worker. `stall_timeout`: seconds
    without a word from a worker after which it is killed. `fonts`: paths or file names of fonts to prefer. Processes
    are started when first needed and kept for later jobs.
    """

    def __init__(
        self,
        workers: int,
        *,
        nice: int = 5,
        threads: int = 1,
        stall_timeout: float = 60.0,
        fonts: Sequence[str] = (),
    ) -> None:
        if workers < 1:
            raise ValueError(f"a render pool needs at least 1 worker, got {workers}")
        self.workers = workers
        self._stall_timeout = stall_timeout
        self._arguments = [f"--nice={nice}", f"--threads={threads}", *(f"--font={font}" for font in fonts)]
        self._slots = asyncio.Semaphore(workers)  # wakes its waiters first come, first served
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._waiting = 0
        self._calls = 0
        self._retiring: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker."""
        return self._waiting

    @property
    def running(self) -> int:
        """Jobs that a worker is rendering."""
        return len(self._busy)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the live workers, busy and idle."""
        return tuple(worker.pid for worker in (*self._busy, *self._idle) if worker.alive)

    async def start(self) -> None:
        """Open the pool, also again after `close`. No process is started before there is a job."""
        self._closed = False

    async def render(self, job: RenderJob, on_progress: Callable[[RenderProgress], None]) -> RenderResult:
        """Render a job and return its result, or raise RenderFailed.

        `on_progress` is called first with frame 0 when a worker has taken the job, then for frame 1, for the last
        frame, and at most ten times a second between; frames never decrease. When this call is cancelled, or
        `on_progress` raises, the worker is killed and the job's temporary files are gone before the exception goes on.
        """
        line = _encode_job(job)
        self._calls += 1
        self._empty.clear()
        try:
            await self._wait_for_slot()
            try:
                return await self._run(job, line, on_progress)
            finally:
                self._slots.release()
        finally:
            self._calls -= 1
            if not self._calls:
                self._empty.set()

    async def close(self) -> None:
        """Kill every worker. Renders under way or waiting raise RenderFailed (RENDERER_STOPPED)."""
        self._closed = True
        for worker in (*self._busy, *self._idle):
            worker.kill()
        await self._empty.wait()
        await asyncio.gather(*(worker.stop() for worker in self._idle), *self._retiring)
        self._idle.clear()

    async def _wait_for_slot(self) -> None:
        self._check_open()
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1

    async def _run(
        self, job: RenderJob, line: bytes, on_progress: Callable[[RenderProgress], None]
    ) -> RenderResult:
        self._check_open()
        worker = await self._take_worker()
        self._busy.add(worker)
        try:
            result = await self._follow(worker, job, line, on_progress)
        except BaseException as error:
            self._busy.discard(worker)
            if isinstance(error, _Reported):
                self._idle.append(worker)  # it said so itself, so it is well
                raise error.failure from None
            # Shielded: a second cancellation must not leave the process or its files behind.
            await asyncio.shield(self._retire(worker, job.directory))
            if isinstance(error, WorkerLost):
                raise self._loss(worker, error) from None
            raise
        self._busy.discard(worker)
        self._idle.append(worker)
        return result

    async def _take_worker(self) -> WorkerProcess:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await asyncio.shield(self._retire(worker, None))
        try:
            worker = await WorkerProcess.spawn(self._arguments)
        except OSError as error:
            _log.error("no render worker could be started: %s", error)
            raise RenderFailed("RENDERER_UNAVAILABLE", "The renderer could not be started.") from None
        if self._closed:  # while it was being started
            worker.kill()
        return worker

    async def _follow(
        self,
        worker: WorkerProcess,
        job: RenderJob,
        line: bytes,
        on_progress: Callable[[RenderProgress], None],
    ) -> RenderResult:
        """Give a worker a job and read what it says until the job has ended."""
        worker.write(line)
        while True:
            try:
                async with asyncio.timeout(self._stall_timeout):
                    event = await worker.read()
            except TimeoutError:
                raise WorkerLost(stalled=True) from None
            match event:
                case {"event": "ready"}:
                    continue
                case {"event": "started", "id": job.id, "frames": frames}:
                    on_progress(RenderProgress(0, frames, 0.0))
                case {
                    "event": "progress",
                    "id": job.id,
                    "frame": frame,
                    "frames": frames,
                    "fps_measured": fps,
                }:
                    on_progress(RenderProgress(frame, frames, fps))
                case {"event": "completed", "id": job.id}:
                    return _result(job, event)
                case {"event": "failed", "id": job.id}:
                    raise _Reported(event)
                case _:
                    _log.error("a render worker said something unexpected: %.200r", event)
                    raise WorkerLost

    def _retire(self, worker: WorkerProcess, directory: Path | None) -> asyncio.Task[None]:
        """Kill a worker and clear up after it; the next job gets a new one."""

        async def retire() -> None:
            await worker.stop()
            if directory is not None:
                await asyncio.to_thread(remove_part_files, directory)

        task = asyncio.create_task(retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    def _loss(self, worker: WorkerProcess, lost: "WorkerLost") -> RenderFailed:
        if self._closed:
            return _stopped()
        if lost.stalled:
            message = f"The renderer made no progress for {self._stall_timeout:g} s."
            return RenderFailed("RENDERER_STALLED", message)
        _log.warning("a render worker (pid %d) died: exit status %s", worker.pid, worker.status)
        return RenderFailed(
            "RENDERER_CRASHED", "The renderer stopped unexpectedly.", {"exitStatus": worker.status}
        )

    def _check_open(self) -> None:
        if self._closed:
            raise _stopped()


class _Reported(Exception):
    """The worker reported a failure of the job."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        super().__init__()
        self.failure = RenderFailed(
            event["code"], event["message"], event["details"], retryable=event["retryable"]
        )


def _stopped() -> RenderFailed:
    return RenderFailed("RENDERER_STOPPED", "The renderer was shut down.")


def _encode_job(job: RenderJob) -> bytes:
    fields = {
        "id": job.id,
        "prompt": job.prompt,
        "width": job.width,
        "height": job.height,
        "fps": job.fps,
        "seconds": job.seconds,
        "directory": str(job.directory),
    }
    line = json.dumps(fields).encode() + b"\n"  # ASCII: no character of the prompt can be a line end
    if len(line) > MAX_JOB:
        message = f"A render job may take at most {MAX_JOB} bytes as JSON; this one takes {len(line)}."
        raise RenderFailed("INVALID_JOB", message, retryable=False)
    return line


def _result(job: RenderJob, event: Mapping[str, Any]) -> RenderResult:
    return RenderResult(
        video=job.directory / VIDEO,
        thumbnail=job.directory / THUMBNAIL,
        duration=event["duration"],
        file_size=event["file_size"],
        width=event["width"],
        height=event["height"],
        frames=event["frames"],
        codec=event["codec"],
    )
