"""``taskwire login`` and ``taskwire task`` against a real server."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from taskwire.cli.credentials import Login, credentials_file, find, save
from tests.cli.conftest import Run, one_line
from tests.support.processes import free_port
from tests.support.server import ADMIN_PASSWORD, ServerProcess, clean_environment
from tests.support.timing import eventually, scaled


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests that leave it as it was."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def at(shared: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> ServerProcess:
    """The shared server, which the commands speak to as admin."""
    monkeypatch.setenv("TASKWIRE_URL", shared.url)
    monkeypatch.setenv("TASKWIRE_TOKEN", shared.login())
    return shared


def create(run: Run, *options: str) -> str:
    return run("task", "create", "a prompt", "--provider", "external", *options).stdout.strip()


def report(server: ServerProcess, task_id: str, **report: Any) -> None:
    with server.client(server.login()) as client:
        answer = client.post(f"/api/v1/tasks/{task_id}/reports", json=report)
        assert answer.status_code == 200, answer.text


# Login


def test_login_and_logout(run: Run, shared: ServerProcess) -> None:
    one_line(run("task", "list", "--url", shared.url, code=1))
    said = run("login", "admin", "--password-stdin", "--url", shared.url + "/", input=ADMIN_PASSWORD + "\n")
    assert said.stderr == f"Logged in at {shared.url} as admin.\n"
    assert stat.S_IMODE(credentials_file().stat().st_mode) == 0o600
    assert "No tasks." in run("task", "list", "--query", "nothing like it", "--url", shared.url).stderr
    kept = find(shared.url)
    assert kept is not None
    run("logout", "--url", shared.url)
    assert find(shared.url) is None
    refused = httpx.post(
        f"{shared.url}/api/v1/auth/refresh", json={"refreshToken": kept.refresh_token}, trust_env=False
    )
    assert refused.status_code == 401
    assert "Not logged in" in run("logout", "--url", shared.url).stderr


def test_login_refused(run: Run, shared: ServerProcess) -> None:
    env = {"TASKWIRE_URL": shared.url}
    said = one_line(run("login", "admin", "--password-stdin", input="wrong\n", code=1, env=env))
    assert said == "The user name or the password is wrong."
    assert "no terminal" in one_line(run("login", "admin", code=1, env=env))
    assert not credentials_file().exists()


def test_login_as_json(run: Run, shared: ServerProcess) -> None:
    words = ["login", "admin", "--password-stdin", "--json", "--url", shared.url]
    answer = json.loads(run(*words, input=ADMIN_PASSWORD + "\n").stdout)
    assert (answer["url"], answer["username"]) == (shared.url, "admin")
    assert "token" not in answer
    assert json.loads(run("logout", "--json", "--url", shared.url).stdout)["loggedOut"] is True


def test_logout_without_the_server(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    save(url, Login("ada", "jwt", 0, "refresh"))
    assert "could not be told" in run("logout", "--url", url).stderr
    assert find(url) is None


# Create, show, list, cancel, retry


def test_create_and_show(run: Run, at: ServerProcess) -> None:
    options = ["--title", "Lighthouse", "--description", "long", "--metadata", "n=1", "--metadata", "s=x=y"]
    task_id = create(run, *options, "--option", "flag=true")
    task = json.loads(run("task", "show", task_id, "--json").stdout)
    assert (task["title"], task["description"], task["prompt"]) == ("Lighthouse", "long", "a prompt")
    assert task["metadata"] == {"n": 1, "s": "x=y"}
    assert task["options"] == {"flag": True}
    text = run("task", "show", task_id).stdout
    assert f"id           {task_id}\n" in text
    assert "status       QUEUED\n" in text


def test_create_for_the_renderer(run: Run, at: ServerProcess) -> None:
    words = ["task", "create", "x", "--size", "320x180", "--seconds", "1", "--fps", "12", "--json"]
    task = json.loads(run(*words).stdout)
    assert (task["provider"], task["options"]) == ("render", {"size": "320x180", "seconds": 1, "fps": 12})
    run("task", "cancel", task["id"])


def test_create_twice_with_one_key(run: Run, at: ServerProcess) -> None:
    assert create(run, "--idempotency-key", "k1") == create(run, "--idempotency-key", "k1")


def test_create_refused(run: Run, at: ServerProcess) -> None:
    assert "wanted NAME=VALUE" in one_line(run("task", "create", "x", "--option", "y", code=2))
    assert "wanted one of external, render" in one_line(run("task", "create", "x", "--provider", "y", code=1))
    assert "size" in one_line(run("task", "create", "x", "--size", "5", code=1))


def test_list(run: Run, at: ServerProcess) -> None:
    ids = [create(run, "--title", f"list-{n}") for n in range(3)]
    run("task", "cancel", ids[0])
    page = json.loads(run("task", "list", "--query", "list-", "--json").stdout)
    assert [task["id"] for task in page["items"]] == ids[::-1]
    assert page["nextCursor"] is None
    text = run("task", "list", "--query", "list-", "--limit", "2")
    assert [line.split()[0] for line in text.stdout.splitlines()] == ["ID", ids[2], ids[1]]
    cursor = text.stderr.split("--cursor ")[1].strip()
    rest = json.loads(run("task", "list", "--query", "list-", "--cursor", cursor, "--json").stdout)
    assert [task["id"] for task in rest["items"]] == ids[:1]
    only = json.loads(run("task", "list", "--query", "list-", "--status", "cancelled", "--json").stdout)
    assert [task["id"] for task in only["items"]] == ids[:1]
    assert "'QUEUED'" in one_line(run("task", "list", "--status", "done", code=1))


def test_list_over_several_pages(run: Run, start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(env={"TASKWIRE_MAX_PAGE": "2"})
    options = ["--url", server.url, "--token", server.login()]
    ids = [run("task", "create", "x", "--provider", "external", *options).stdout.strip() for _ in range(5)]
    page = json.loads(run("task", "list", "--limit", "5", "--json", *options).stdout)
    assert [task["id"] for task in page["items"]] == ids[::-1]


def test_cancel_and_retry(run: Run, at: ServerProcess) -> None:
    first, second = create(run), create(run)
    assert run("task", "cancel", first, second).stdout == f"{first} CANCELLED\n{second} CANCELLED\n"
    again = run("task", "retry", first, "video_nope", "--json", code=1)
    assert [(task["id"], task["attempt"]) for task in json.loads(again.stdout)] == [(first, 2)]
    assert again.stderr == "taskwire: video_nope: There is no such task.\n"
    run("task", "cancel", first)


def test_unknown_task(run: Run, at: ServerProcess) -> None:
    for words in (["show"], ["watch"]):
        assert one_line(run("task", *words, "video_nope", code=1)) == "There is no such task."


def test_bad_token_and_no_server(run: Run, at: ServerProcess) -> None:
    assert "token" in one_line(run("task", "list", "--token", "x", code=1))
    url = f"http://127.0.0.1:{free_port()}"
    assert "Is the server running there?" in one_line(run("task", "list", "--url", url, code=1))


# Watch


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"status": "COMPLETED", "result": {"videoUrl": "https://cdn.example/v.mp4"}}, 0),
        ({"status": "FAILED", "error": {"code": "NO_GPU", "message": "none left"}}, 1),
        ({"status": "CANCELLED"}, 2),
    ],
)
def test_watch_what_has_ended(run: Run, at: ServerProcess, end: dict[str, Any], code: int) -> None:
    task_id = create(run, "--title", "Watched")
    report(at, task_id, **end)
    shown = run("task", "watch", task_id, code=code)
    assert f"{task_id} Watched: {end['status']}" in shown.stdout
    if code == 0:
        assert shown.stdout.endswith("https://cdn.example/v.mp4\n")
    else:
        assert f"{task_id}: {'NO_GPU: none left' if code == 1 else 'CANCELLED'}" in shown.stderr
    (line,) = run("task", "watch", task_id, "--json", code=code).stdout.splitlines()
    assert json.loads(line)["status"] == end["status"]


def test_the_worst_end_counts(run: Run, at: ServerProcess) -> None:
    done, cancelled, failed = create(run), create(run), create(run)
    report(at, done, status="COMPLETED")
    report(at, cancelled, status="CANCELLED")
    report(at, failed, status="FAILED")
    run("task", "watch", done, cancelled, code=2)
    run("task", "watch", done, cancelled, failed, done, code=1)


def test_create_and_watch_a_render(run: Run, at: ServerProcess) -> None:
    shown = run("task", "create", "x", "--size", "128x72", "--seconds", "0.5", "--watch")
    assert "COMPLETED 100 %" in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith("/video.mp4")
    assert httpx.get(shown.stdout.splitlines()[-1], trust_env=False).status_code == 200


class Watching:
    """``taskwire task watch`` in a process of its own."""

    def __init__(self, server: ServerProcess, folder: Path, *arguments: str) -> None:
        env = clean_environment() | {"TASKWIRE_URL": server.url, "TASKWIRE_TOKEN": server.login()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskwire", "task", "watch", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            cwd=folder,
        )

    def __enter__(self) -> "Watching":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> dict[str, Any]:
        stream: IO[str] | None = self.process.stdout
        assert stream is not None
        found: dict[str, Any] = json.loads(stream.readline())
        return found

    def end(self) -> tuple[int, str, str]:
        out, error = self.process.communicate(timeout=scaled(30))
        return self.process.returncode, out, error


def test_watch_across_a_crash(run: Run, server: ServerProcess, place: Path) -> None:
    options = ["--url", server.url, "--token", server.login()]
    task_id = run("task", "create", "x", "--provider", "external", *options).stdout.strip()
    with Watching(server, place, task_id, "--json") as watching:
        assert watching.line()["status"] == "QUEUED"
        report(server, task_id, progress=40)
        assert watching.line()["progress"] == 40
        server.kill9()
        server.start()
        report(server, task_id, status="COMPLETED")
        assert watching.line()["status"] == "COMPLETED"
        code, rest, error = watching.end()
    assert (code, rest) == (0, "")
    assert "Connection lost" in error


def test_watch_gives_up(run: Run, server: ServerProcess, place: Path) -> None:
    options = ["--url", server.url, "--token", server.login()]
    task_id = run("task", "create", "x", "--provider", "external", *options).stdout.strip()
    with Watching(server, place, task_id, "--json", "--patience", "0.3") as watching:
        watching.line()
        server.kill9()
        code, rest, error = watching.end()
    assert (code, rest) == (1, "")
    assert "out of reach" in error.splitlines()[-1]


def test_ctrl_c(run: Run, at: ServerProcess, place: Path) -> None:
    task_id = create(run)
    with Watching(at, place, task_id, "--json") as watching:
        watching.line()
        watching.process.send_signal(signal.SIGINT)
        assert watching.end() == (130, "", "Stopped watching; the task goes on.\n")
    eventually(lambda: json.loads(run("task", "show", task_id, "--json").stdout)["status"] == "QUEUED")
