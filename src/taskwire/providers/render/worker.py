"""A persistent worker process: reads render jobs as JSON lines from stdin, answers with JSON lines on stdout.

One job at a time::

    <- {"id", "prompt", "width", "height", "fps", "seconds", "directory"}
    -> {"id", "event": "started", "frames"}
    -> {"id", "event": "progress", "frame", "frames", "fps_measured"}     first, last, at most ten a second
    -> {"id", "event": "completed", "duration", "file_size", "width", "height", "frames", "codec"}
     | {"id", "event": "failed", "code", "message", "details", "retryable"}

Before the first job it says `{"event": "ready"}`. It lives no longer than its parent: it ends when stdin does, also in
the middle of a render. Signals meant for the whole process group (Ctrl-C, a service stop) are left to the parent.
"""

import argparse
import contextlib
import ctypes
import errno
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import remove_part_files
from .options import frame_count

if TYPE_CHECKING:
    from .encode import Progress
    from .lettering import FontChain

MAX_LINE = 1 << 20  # bytes of one job
PROGRESS_INTERVAL = 0.1  # seconds

_STORAGE_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "prompt": str,
    "width": int,
    "height": int,
    "fps": int,
    "seconds": (int, float),
    "directory": str,
}


class InvalidJob(Exception):
    """A job is not what was wanted; the message says what was."""


class Channel:
    """The way back to the parent, kept apart from stdout, which libraries may write to."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)  # whatever is printed from here on goes to stderr

    def send(self, **event: Any) -> None:
        data = json.dumps(event).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            os._exit(1)  # nobody reads any more


class Jobs:
    """Reads jobs in a thread of its own, so that the end of stdin is noticed while a job is rendered."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.directory: Path | None = None  # of the job under way
        threading.Thread(target=self._read, name="jobs", daemon=True).start()

    def next(self) -> bytes:
        """Wait for the next line."""
        return self._lines.get()

    def _read(self) -> None:
        pending = b""
        while chunk := os.read(0, 65536):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self._lines.put(line)
            if len(pending) > MAX_LINE:
                _complain(f"a job line exceeds {MAX_LINE} bytes")
                break
        if self.directory is not None:
            remove_part_files(self.directory)
        os._exit(0)


class _Report:
    """Passes on the first and the last progress and at most ten a second in between."""

    def __init__(self, channel: Channel, job: object) -> None:
        self._channel, self._job = channel, job
        self._next = 0.0

    def __call__(self, progress: "Progress") -> None:
        now = time.monotonic()
        if now < self._next and progress.frame < progress.frames:
            return
        self._next = now + PROGRESS_INTERVAL
        self._channel.send(
            id=self._job,
            event="progress",
            frame=progress.frame,
            frames=progress.frames,
            fps_measured=round(progress.fps, 1),
        )


def _parse(line: bytes) -> dict[str, Any]:
    try:
        job = json.loads(line)
    except ValueError as error:
        raise InvalidJob(f"a job is one line of JSON: {error}") from None
    if not isinstance(job, dict):
        raise InvalidJob(f"a job is a JSON object, got {type(job).__name__}")
    return job


def _check(job: Mapping[str, Any]) -> None:
    for name, kind in _FIELDS.items():
        if not isinstance(job.get(name), kind) or isinstance(job[name], bool):
            raise InvalidJob(f"a job needs {', '.join(_FIELDS)}; {name} is {job.get(name)!r:.80}")
    for side in (job["width"], job["height"]):
        if side < 2 or side % 2:
            raise InvalidJob(
                f"width and height must be even and positive, got {job['width']}x{job['height']}"
            )
    if job["fps"] < 1 or not 0 < job["seconds"] < float("inf"):
        raise InvalidJob(f"fps and seconds must be positive, got {job['fps']} and {job['seconds']}")


def _render(channel: Channel, jobs: Jobs, job: Mapping[str, Any], fonts: "FontChain", threads: int) -> None:
    from .encode import render
    from .scene import Scene

    frames = frame_count(job["seconds"], job["fps"])
    channel.send(id=job["id"], event="started", frames=frames)
    jobs.directory = Path(job["directory"])
    scene = Scene(job["prompt"], job["width"], job["height"], fps=job["fps"], frames=frames, fonts=fonts)
    clip = render(scene, jobs.directory, _Report(channel, job["id"]), threads=threads)
    channel.send(
        id=job["id"],
        event="completed",
        duration=clip.duration,
        file_size=clip.file_size,
        width=clip.width,
        height=clip.height,
        frames=clip.frames,
        codec=clip.codec,
    )


def _failure(error: Exception) -> dict[str, Any]:
    """Say what went wrong in terms that may be shown to users: no paths, no stack trace."""
    if isinstance(error, OSError) and error.errno in _STORAGE_FULL:
        message = "There is no space left to store the video."
        return {"code": "STORAGE_FULL", "message": message, "details": None, "retryable": True}
    if isinstance(error, OSError) and error.errno is not None:
        details = {"reason": errno.errorcode.get(error.errno, str(error.errno))}
        message = "The video could not be stored."
        return {"code": "STORAGE_UNAVAILABLE", "message": message, "details": details, "retryable": True}
    if isinstance(error, MemoryError):
        message = "There was not enough memory to render the video."
        return {"code": "RENDER_OUT_OF_MEMORY", "message": message, "details": None, "retryable": True}
    if isinstance(error, InvalidJob):
        return {"code": "INVALID_JOB", "message": str(error), "details": None, "retryable": False}
    details = {"reason": type(error).__name__}
    return {"code": "RENDER_FAILED", "message": "Rendering failed.", "details": details, "retryable": False}


def _complain(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201 - the parent puts it in its log


def _work(channel: Channel, jobs: Jobs, fonts: "FontChain", threads: int) -> None:
    while True:
        identity: object = None
        try:
            job = _parse(jobs.next())
            identity = job.setdefault("id", None)
            _check(job)
            _render(channel, jobs, job, fonts, threads)
        except Exception as error:  # noqa: BLE001 - whatever it is ends this job and not the worker
            failure = _failure(error)
            if failure["code"] == "RENDER_FAILED":
                traceback.print_exc()
            else:
                _complain(f"{failure['code']}: {error}")
            channel.send(id=identity, event="failed", **failure)
        finally:
            jobs.directory = None


def _follow_parent() -> None:
    """Ask Linux to kill this process when its parent ends, should another process hold stdin open."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _leave_signals_to_parent() -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def main() -> None:
    """Set the process up, then work until stdin ends."""
    _leave_signals_to_parent()
    _follow_parent()
    parser = argparse.ArgumentParser(
        prog="taskwire.providers.render.worker", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--nice", type=int, default=5, help="how far to step back behind other processes")
    parser.add_argument("--threads", type=int, default=1, help="encoder threads")
    parser.add_argument(
        "--font", action="append", default=[], help="a font to prefer; may be given several times"
    )
    arguments = parser.parse_args()
    if hasattr(os, "nice"):
        os.nice(arguments.nice)
    for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM"):  # read when NumPy is imported, so not before
        os.environ[f"{library}_NUM_THREADS"] = "1"
    faulthandler.enable()
    channel, jobs = Channel(), Jobs()

    from . import encode  # noqa: F401 - the libraries are loaded before the first job, not during it
    from .lettering import FontChain

    channel.send(event="ready")
    _work(channel, jobs, FontChain(arguments.font), arguments.threads)


if __name__ == "__main__":
    main()
