"""``taskwire serve`` starts with good settings, refuses bad ones with the reason, and keeps secrets out of its log."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from taskwire.server import main as server_main
from taskwire.settings import Settings
from tests.cli.conftest import Run, one_line
from tests.support.processes import free_port
from tests.support.server import ServerProcess
from tests.support.timing import eventually

SECRET = "a-secret-of-32-characters-or-more!"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What the server would have been started with."""
    found: list[Settings] = []

    def run(settings: Settings) -> int:
        found.append(settings)
        return 7

    monkeypatch.setattr(server_main, "run", run)
    return found


def test_options_become_settings(run: Run, served: list[Settings], place: Path) -> None:
    (place / "my.toml").write_text("max_page = 5\n")
    run("serve", "--demo", "--listen", "127.0.0.1:1", "--listen", "[::1]:2", "--data", "d", "--database",
        "sqlite:///x.db", "--broker", "memory:", "--config", "my.toml", code=7)  # fmt: skip
    (settings,) = served
    assert settings.demo
    assert settings.listen == ("127.0.0.1:1", "[::1]:2")
    assert (settings.data, settings.database, settings.broker) == (Path("d"), "sqlite:///x.db", "memory:")
    assert settings.max_page == 5


def test_nothing_given(run: Run, served: list[Settings]) -> None:
    run("serve", code=7)
    assert served == [Settings()]


def test_debug(run: Run, served: list[Settings]) -> None:
    run("--debug", "serve", code=7)
    run("serve", code=7, env={"TASKWIRE_DEBUG": "1"})
    assert [settings.log_level for settings in served] == ["debug", "debug"]


def test_options_win_over_the_environment(run: Run, served: list[Settings]) -> None:
    run("serve", "--data", "here", code=7, env={"TASKWIRE_DATA": "there", "TASKWIRE_DEMO": "1"})
    assert served[0].data == Path("here")
    assert served[0].demo


@pytest.mark.parametrize("arguments", [[], ["--demo"]])
def test_open_to_others_only_with_a_secret(run: Run, served: list[Settings], arguments: list[str]) -> None:
    said = one_line(run("serve", *arguments, "--listen", "0.0.0.0:3000", code=1))
    assert "listens on loopback addresses only, but 0.0.0.0:3000 can be reached from outside" in said
    assert "Set TASKWIRE_SECRET" in said
    assert not served
    run("serve", *arguments, "--listen", "0.0.0.0:3000", code=7, env={"TASKWIRE_SECRET": SECRET})


def test_bad_settings(run: Run, served: list[Settings]) -> None:
    assert one_line(run("serve", "--listen", "3000", code=1)).startswith(
        "--listen (command line): wanted HOST:PORT"
    )
    assert not served


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TASKWIRE_JWKS_URL": "https://id.example/jwks"}, "TASKWIRE_JWT_AUDIENCE must be set"),
        ({"TASKWIRE_BROKER": "kafka://x"}, "wanted a broker URL"),
        ({"TASKWIRE_ADMIN_PASSWORD": "short"}, "TASKWIRE_ADMIN_PASSWORD must have"),
    ],
)
def test_settings_that_do_not_go_together(
    start_server: Callable[..., ServerProcess], env: dict[str, str], said: str
) -> None:
    with pytest.raises(RuntimeError, match="the server ended with 1 instead of getting ready") as ended:
        start_server(env=env)
    assert said in str(ended.value)
    assert "Traceback" not in str(ended.value)


def test_a_likely_slip_is_told(run: Run, served: list[Settings]) -> None:
    said = run("serve", code=7, env={"TASKWIRE_LISTNE": "127.0.0.1:1"}).stderr
    assert "TASKWIRE_LISTNE is no setting; is TASKWIRE_LISTEN meant?" in said


def test_a_port_that_is_taken(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert f"cannot listen on {address}" in one_line(run("serve", "--listen", address, code=1))


def test_secrets_stay_out_of_the_log(start_server: Callable[..., ServerProcess]) -> None:
    env = {
        "TASKWIRE_SECRET": SECRET,
        "WS_AUTH_TOKEN": "the-shared-token-of-the-jobs",
        "TASKWIRE_ADMIN_PASSWORD": "the-password-of-the-admin",
        "TASKWIRE_LOG_FORMAT": "json",
    }
    server = start_server(env=env, arguments=["--listen", f"127.0.0.1:{free_port()}"])
    token = server.login(password=env["TASKWIRE_ADMIN_PASSWORD"])
    with server.client(token) as client:
        client.get("/api/v1/tasks", params={"q": SECRET, "token": token, "x": env["WS_AUTH_TOKEN"]})
        client.get(f"/{SECRET}?password={env['TASKWIRE_ADMIN_PASSWORD']}")
    with pytest.raises(AssertionError, match="401"):
        server.login(password="hunter2-hunter2")
    server.terminate()
    log = server.log()
    for secret in (*list(env.values())[:3], token, "hunter2"):
        assert secret not in log
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    assert "server.started" in events
    assert events[-1] == "server.stopped"


def test_debug_logs_requests_masked(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(env={"TASKWIRE_LOG_LEVEL": "debug", "TASKWIRE_LOG_FORMAT": "json"})
    httpx.get(f"{server.url}/api/v1/tasks?token=hunter2&q=x", trust_env=False)

    def requests() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "request" and str(line["path"]).startswith("/api")]

    (line,) = eventually(requests)
    assert line["path"] == "/api/v1/tasks?token=***&q=x"
    assert line["status"] == 401
    assert line["requestId"]
