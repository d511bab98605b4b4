"""The programs in examples/ run as they are against a server."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import processes, services
from tests.support.server import ServerProcess, clean_environment
from tests.support.timing import eventually, scaled

EXAMPLES: Final = services.ROOT / "examples"


def run(program: Sequence[str | Path], token: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*program, *arguments],
        env=clean_environment() | {"TASKWIRE_TOKEN": token},
        cwd=services.ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=scaled(60),
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of this file."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(params=["watch_task.py", "watch_task.mjs"])
def watcher(request: pytest.FixtureRequest) -> list[str | Path]:
    """The command of each of the watchers."""
    if request.param.endswith(".mjs"):
        return [request.getfixturevalue("node"), EXAMPLES / request.param]
    return [sys.executable, EXAMPLES / request.param]


def create(server: ServerProcess, token: str, **body: Any) -> str:
    with server.client(token) as rest:
        answer = rest.post("/api/v1/tasks", json={"prompt": "Rain", **body})
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


def test_watchers_follow_a_render_to_its_video(server: ServerProcess, watcher: list[str | Path]) -> None:
    token = server.login()
    task = create(server, token, options={"size": "320x180", "seconds": 2})
    done = run(watcher, token, task, server.ws_url())
    assert done.returncode == 0, done.stderr
    assert re.search(
        rf"completed in [\d.]+ s: {re.escape(server.url)}/files/\S+/video\.mp4$", done.stdout.strip()
    )


def test_watchers_tell_of_a_cancelled_task(server: ServerProcess, watcher: list[str | Path]) -> None:
    token = server.login()
    task = create(server, token, provider="external")
    with server.client(token) as rest:
        rest.post(f"/api/v1/tasks/{task}/cancel")
    done = run(watcher, token, task, server.ws_url())
    assert done.returncode == 1
    assert "CANCELLED" in done.stdout


@pytest.mark.parametrize("wrong", ["task", "token"])
def test_watchers_give_up_where_coming_back_is_of_no_use(
    server: ServerProcess, watcher: list[str | Path], wrong: str
) -> None:
    token = server.login()
    task = create(server, token, provider="external")
    given = ("no token", task) if wrong == "token" else (token, "video_unknown")
    done = run(watcher, *given, server.ws_url())
    assert done.returncode == 2
    assert re.search("UNAUTHORIZED|1008" if wrong == "token" else "TASK_NOT_FOUND", done.stdout + done.stderr)


def test_watchers_come_back_after_a_crash(
    start_server: Callable[..., ServerProcess], watcher: list[str | Path], tmp_path: Path
) -> None:
    server = start_server()
    token = server.login()
    task = create(server, token, provider="external")
    output = tmp_path / "output"
    with output.open("wb") as file:
        env = clean_environment() | {"TASKWIRE_TOKEN": token, "PYTHONUNBUFFERED": "1"}
        process = processes.spawn(
            [*watcher, task, server.ws_url()], env=env, cwd=services.ROOT, stdout=file, stderr=file
        )
    try:
        eventually(lambda: "QUEUED" in output.read_text(), 20)
        server.kill9()
        server.start()
        with server.client(token) as rest:
            rest.post(f"/api/v1/tasks/{task}/reports", json={"status": "COMPLETED"})
        assert process.wait(scaled(60)) == 0, output.read_text()
    finally:
        processes.stop(process)
    assert "completed in" in output.read_text()


def test_the_producer_works_with_an_api_key(server: ServerProcess) -> None:
    token = server.login()
    with server.client(token) as rest:
        key = rest.post("/api/v1/keys", json={"name": "farm", "scopes": ["write"]}).json()["key"]
        done = run([sys.executable, EXAMPLES / "producer.py"], key, server.url, "4", "5")
        assert done.returncode == 0, done.stderr
        ids = done.stdout.split()
        assert len(ids) == 4
        for id in ids:
            task = rest.get(f"/api/v1/tasks/{id}").json()
            assert (task["status"], task["attempt"], task["currentStep"]) == ("COMPLETED", 1, 5)
            assert task["result"]["resolution"] == "1280x720"


def test_the_producer_leaves_a_cancelled_task_alone(server: ServerProcess, tmp_path: Path) -> None:
    token = server.login()
    output = tmp_path / "output"
    with output.open("wb") as file, server.client(token) as rest:
        process = processes.spawn(
            [sys.executable, EXAMPLES / "producer.py", server.url, "2", "100"],
            env=clean_environment() | {"TASKWIRE_TOKEN": token},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            eventually(lambda: len(output.read_text().split()) == 2, 20)
            cancelled, other = output.read_text().split()
            rest.post(f"/api/v1/tasks/{cancelled}/cancel")
            assert process.wait(scaled(60)) == 0, output.read_text()
        finally:
            processes.stop(process)
        assert rest.get(f"/api/v1/tasks/{cancelled}").json()["status"] == "CANCELLED"
        assert rest.get(f"/api/v1/tasks/{other}").json()["status"] == "COMPLETED"
        types = [entry["type"] for entry in rest.get(f"/api/v1/tasks/{cancelled}/events").json()["items"]]
        assert types[-1] == "cancelled", json.dumps(types)
