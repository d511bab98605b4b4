"""The worker process: its protocol, its manners, and that it never outlives its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskwire.providers.render.files import THUMBNAIL, VIDEO, part
from taskwire.providers.render.worker import MAX_LINE
from tests.support.timing import eventually, scaled

COMMAND = [sys.executable, "-P", "-m", "taskwire.providers.render.worker"]
LIMIT = scaled(60)  # seconds; generous, for it only ends tests that fail

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")


def job(directory: Path, /, **changes: Any) -> dict[str, Any]:
    fields = {"id": "a", "prompt": "Cats", "width": 128, "height": 72, "fps": 12, "seconds": 2}
    return fields | {"directory": str(directory)} | changes


def endless(directory: Path) -> dict[str, Any]:
    """A job that is still running when the test has long ended."""
    return job(directory, width=1920, height=1080, fps=60, seconds=3600)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Worker:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.pid = process, process.pid
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    def send(self, message: object) -> None:
        self.send_line(json.dumps(message).encode())

    def send_line(self, line: bytes) -> None:
        self.stdin.write(line + b"\n")
        self.stdin.flush()

    def read(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.stdout.readline())
        return event

    def read_until(self, *events: str) -> list[dict[str, Any]]:
        """Read up to and including one of these events."""
        read = [self.read()]
        while read[-1]["event"] not in events:
            read.append(self.read())
        return read


@contextmanager
def worker(*arguments: str) -> Iterator[Worker]:
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *arguments], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            running = Worker(process)
            assert running.read() == {"event": "ready"}
            yield running
        finally:
            process.kill()


def test_jobs_are_rendered_one_after_the_other(tmp_path: Path) -> None:
    with worker() as running:
        for number in range(2):
            running.send(job(tmp_path / str(number), id=f"job {number}"))
        for number in range(2):
            events = running.read_until("completed", "failed")
            assert {event["id"] for event in events} == {f"job {number}"}
            assert events[0] == {"id": f"job {number}", "event": "started", "frames": 24}
            assert {event["event"] for event in events[1:-1]} == {"progress"}
            video = tmp_path / str(number) / VIDEO
            assert events[-1] == {
                "id": f"job {number}",
                "event": "completed",
                "duration": 2.0,
                "file_size": video.stat().st_size,
                "width": 128,
                "height": 72,
                "frames": 24,
                "codec": "h264",
            }
            assert (tmp_path / str(number) / THUMBNAIL).exists()


def test_progress_is_true_rising_and_not_too_frequent(tmp_path: Path) -> None:
    with worker() as running:
        began = time.monotonic()
        running.send(job(tmp_path, width=640, height=360, seconds=40))
        progress = running.read_until("completed", "failed")[1:-1]
        elapsed = time.monotonic() - began
    frames = [event["frame"] for event in progress]
    assert frames[0] == 1
    assert frames[-1] == 480
    assert frames == sorted(set(frames))
    assert {event["frames"] for event in progress} == {480}
    assert all(event["fps_measured"] > 0 for event in progress)
    assert 3 <= len(frames) <= 2 + elapsed / 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": None}, "prompt is None"),
        ({"width": "128"}, "width is '128'"),
        ({"width": True}, "width is True"),
        ({"height": 71}, "even"),
        ({"height": 0}, "even and positive"),
        ({"fps": 0}, "positive"),
        ({"fps": 2.5}, "fps is 2.5"),
        ({"seconds": -1}, "positive"),
        ({"directory": 7}, "directory is 7"),
    ],
)
def test_a_wrong_job_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with worker() as running:
        running.send(job(tmp_path, **changes))
        event = running.read()
    assert (event["id"], event["event"], event["code"], event["retryable"]) == (
        "a",
        "failed",
        "INVALID_JOB",
        False,
    )
    assert message in event["message"]


@pytest.mark.parametrize("line", [b"", b"nonsense", b"[]", b"7", b"\xff\xfe", b"{}"])
def test_a_wrong_line_is_refused_and_the_next_job_rendered(tmp_path: Path, line: bytes) -> None:
    with worker() as running:
        running.send_line(line)
        event = running.read()
        assert (event["id"], event["event"], event["code"]) == (None, "failed", "INVALID_JOB")
        running.send(job(tmp_path))
        assert running.read_until("completed", "failed")[-1]["event"] == "completed"


def test_a_line_without_end_ends_the_worker() -> None:
    with worker() as running:
        running.stdin.write(b"x" * (MAX_LINE + 100_000))
        running.stdin.flush()
        assert running.stdout.readline() == b""
        assert b"exceeds" in running.stderr.read()


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="the system has no /dev/full")
def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    part(tmp_path, VIDEO).symlink_to("/dev/full")
    with worker() as running:
        running.send(job(tmp_path))
        event = running.read_until("completed", "failed")[-1]
    assert (event["code"], event["retryable"]) == ("STORAGE_FULL", True)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with worker() as running:
        running.send(job(tmp_path / "file" / "below"))
        event = running.read_until("completed", "failed")[-1]
        running.send(job(tmp_path))
        assert running.read_until("completed", "failed")[-1]["event"] == "completed"
    assert event["code"] == "STORAGE_UNAVAILABLE"
    assert event["details"] == {"reason": "ENOTDIR"}
    assert str(tmp_path) not in json.dumps(event)


def test_an_unforeseen_error_shows_its_kind_only(tmp_path: Path) -> None:
    with worker() as running:
        running.send(job(tmp_path / "nul\0byte"))  # the file system refuses it with a ValueError
        event = running.read_until("completed", "failed")[-1]
        running.process.kill()
        assert b"Traceback" in running.stderr.read()
    assert (event["code"], event["details"]) == ("RENDER_FAILED", {"reason": "ValueError"})
    assert event["message"] == "Rendering failed."


def test_the_end_of_stdin_ends_an_idle_worker() -> None:
    with worker() as running:
        running.stdin.close()
        assert running.process.wait(LIMIT) == 0


def test_the_end_of_stdin_ends_a_render_and_removes_its_files(tmp_path: Path) -> None:
    with worker() as running:
        running.send(endless(tmp_path))
        running.read_until("progress")
        assert part(tmp_path, VIDEO).exists()
        running.stdin.close()
        assert running.process.wait(LIMIT) == 0
    assert list(tmp_path.iterdir()) == []


def test_signals_for_the_whole_group_are_left_to_the_parent(tmp_path: Path) -> None:
    with worker() as running:
        running.send(job(tmp_path, width=640, height=360, seconds=60))
        running.read_until("progress")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            running.process.send_signal(number)
        assert running.read_until("completed", "failed")[-1]["event"] == "completed"


@needs_proc
def test_libraries_cannot_write_into_the_protocol() -> None:
    with worker() as running:
        descriptors = Path(f"/proc/{running.pid}/fd")
        assert (descriptors / "1").readlink() == (descriptors / "2").readlink()


@needs_proc
def test_it_steps_back_behind_other_processes_and_uses_few_threads(tmp_path: Path) -> None:
    with worker("--nice", "7") as running:
        running.send(endless(tmp_path))
        running.read_until("progress")
        assert os.getpriority(os.PRIO_PROCESS, running.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
        assert len(list(Path(f"/proc/{running.pid}/task").iterdir())) <= 3  # main, reader, encoder


RELAY = """
import subprocess, sys
worker = subprocess.Popen(sys.argv[1:])  # with this process's own stdin and stdout
print(f'{{"event": "relay", "pid": {worker.pid}}}', flush=True)
worker.wait()
"""


@needs_proc
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_it_dies_with_its_parent_even_if_its_pipes_stay_open(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", RELAY, *COMMAND]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as parent:
        try:
            relay = Worker(
                parent
            )  # this process holds the other ends of the worker's pipes, before and after
            relay.send(endless(tmp_path))
            events = relay.read_until("progress")
            (pid,) = (event["pid"] for event in events if event["event"] == "relay")
            assert alive(pid)
        finally:
            parent.kill()
        eventually(lambda: not alive(pid), 60)


def test_it_loads_nothing_of_the_server() -> None:
    code = (
        "import sys, taskwire.providers.render.worker, taskwire.providers.render.encode\n"
        "heavy = {'sqlalchemy', 'fastapi', 'pydantic', 'uvicorn', 'redis', 'httpx', 'structlog'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout == "[]\n", "a worker starts in a fraction of a second only as long as it loads little"
