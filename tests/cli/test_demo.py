"""``taskwire demo``: videos that play, made while one watches, and nothing left running."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import av
import pytest

from tests.cli.conftest import Run
from tests.support.server import ServerProcess, clean_environment
from tests.support.timing import eventually, scaled

SMALL = ["--size", "128x72", "--seconds", "0.5", "--tasks", "2"]


@contextmanager
def demo(place: Path, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, with its output in two pipes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "taskwire", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
        env=clean_environment() | env,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=scaled(30))


def servers_in(folder: Path) -> list[int]:
    """Processes whose command line names ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "serve" in words and str(folder) in words:
            found.append(int(path.parent.name))
    return found


def test_it_makes_videos(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept here"
    with demo(place, *SMALL, "--data", str(folder)) as process:
        out, error = process.communicate(timeout=scaled(90))
    assert process.returncode == 0, error
    assert "Starting a server at http://127.0.0.1:" in error
    assert "2 tasks, followed over ws://127.0.0.1:" in error
    assert "taskwire serve --demo --data" in error
    assert "COMPLETED 100 %" in out
    videos = [line for line in out.splitlines() if line.endswith(".mp4")]
    assert len(videos) == 2
    for video in videos:
        with av.open(video) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == (128, 72)
            assert len(list(container.decode(stream))) == 12
    assert servers_in(folder) == []


def test_again_in_the_same_folder_and_as_json(place: Path) -> None:
    for _ in range(2):
        with demo(place, *SMALL, "--json") as process:
            out, error = process.communicate(timeout=scaled(90))
        assert process.returncode == 0, error
        assert error == ""
        *updates, last = [json.loads(line) for line in out.splitlines()]
        assert {update["status"] for update in updates} == {"QUEUED", "PROCESSING", "COMPLETED"}
        assert all((place / video).is_file() for video in last["videos"])
    assert len(list((place / "taskwire-demo" / "media").iterdir())) == 4


def test_a_running_server(run: Run, server: ServerProcess) -> None:
    shown = run("demo", *SMALL, "--url", server.url, "--token", server.login())
    assert len([line for line in shown.stdout.splitlines() if line.startswith(f"{server.url}/files/")]) == 2
    assert "Starting a server" not in shown.stderr


def test_ctrl_c_stops_the_server(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    with demo(place, "--size", "1280x720", "--seconds", "60", "--json", "--data", str(folder)) as process:
        stream: IO[str] | None = process.stdout
        assert stream is not None
        assert json.loads(stream.readline())["status"] == "QUEUED"
        assert len(servers_in(folder)) >= 1
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=scaled(60))
    assert process.returncode == 130
    assert error == "Stopped.\n"
    eventually(lambda: servers_in(folder) == [])


def test_a_server_that_does_not_start(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    with demo(place, *SMALL, "--data", str(folder), TASKWIRE_ADMIN_PASSWORD="short") as process:
        out, error = process.communicate(timeout=scaled(60))
    assert (process.returncode, out) == (1, "")
    assert "The server did not start. Its log," in error
    assert "TASKWIRE_ADMIN_PASSWORD must have" in error
    assert servers_in(folder) == []


def test_a_folder_that_cannot_be_made(run: Run) -> None:
    said = run("demo", "--data", "/proc/taskwire/demo", code=1).stderr
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("taskwire: /proc/taskwire")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_usual_port_may_be_taken(place: Path) -> None:
    """Then it takes another one (or did already, if something else listens there now)."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 3000))
            other.listen()
        except OSError:
            pass
        with demo(place, *SMALL) as process:
            _, error = process.communicate(timeout=scaled(90))
    assert process.returncode == 0, error
    assert "http://127.0.0.1:3000;" not in error
