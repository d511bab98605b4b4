"""The tests' own tools: waiting, processes that never outlive the tests, private services, the server process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.support import services
from tests.support.processes import free_port, spawn, stop
from tests.support.server import ServerProcess, clean_environment
from tests.support.services import ROOT
from tests.support.timing import StillFalse, eventually, eventually_async


def test_eventually_returns_the_first_true_result() -> None:
    results = iter([0, "", "found"])
    assert eventually(lambda: next(results)) == "found"


def test_eventually_takes_a_failed_assertion_for_not_yet() -> None:
    looks: list[int] = []

    def check() -> bool:
        looks.append(1)
        assert len(looks) >= 3, "too few"
        return True

    assert eventually(check)
    assert len(looks) == 3


def test_eventually_gives_up_and_says_what_it_saw() -> None:
    looks: list[int] = []

    def check() -> bool:
        looks.append(1)
        return False

    with pytest.raises(StillFalse, match="the last result was False"):
        eventually(check, 0.05)
    assert len(looks) > 1


def test_eventually_passes_other_errors_on() -> None:
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 // 0)


@pytest.mark.anyio
async def test_eventually_async_takes_functions_and_coroutine_functions() -> None:
    results = iter([False, True, False, True])

    async def check() -> bool:
        return next(results)

    assert await eventually_async(check)
    assert await eventually_async(lambda: next(results))
    with pytest.raises(StillFalse):
        await eventually_async(lambda: False, 0.05)


def test_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1] < 32_768  # where Linux begins to number outgoing connections


def running(pid: int) -> bool:
    """Whether the process lives; one that ended, but that nobody has asked for its exit code, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_stop_leaves_no_child_behind() -> None:
    process = spawn(["sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout:
        child = int(process.stdout.readline())
    assert stop(process, signal.SIGTERM, patience=0.1) == -signal.SIGKILL
    eventually(lambda: not running(child))


def start_and_be_killed(program: str) -> list[str]:
    """Run a program of Python that uses ``spawn`` and prints a line; kill -9 it, and return the words of the line."""
    parent = spawn([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout
    with parent.stdout:
        words = parent.stdout.readline().decode().split()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert words, "the program ended too early"
    return words


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_what_is_spawned_dies_with_the_tests() -> None:
    program = """if True:
        import time
        from pathlib import Path
        from tests.support.processes import spawn
        from tests.support.timing import eventually
        pid = spawn(["sleep", "1000"]).pid
        eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\\n")
        print(pid, flush=True)
        time.sleep(1000)
        """
    (pid,) = start_and_be_killed(program)
    eventually(lambda: not running(int(pid)))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_postgres_dies_with_the_tests(postgres: services.Postgres) -> None:
    program = """if True:
        import time
        from tests.support.services import Postgres
        with Postgres() as server:
            print(server.port, server.folder, flush=True)
            time.sleep(1000)
        """
    port, folder = start_and_be_killed(program)
    try:

        def refused() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", int(port))) != 0

        eventually(refused)
    finally:
        shutil.rmtree(folder)


@pytest.mark.anyio
async def test_postgres_url_is_an_empty_database(postgres: services.Postgres, postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        await connection.execute("CREATE TABLE here (n int)")
    finally:
        await connection.close()
    second = postgres.create_database()
    try:
        assert (
            postgres.sql(
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", second.rpartition("/")[2]
            )
            == "0"
        )
    finally:
        postgres.drop_database(second)


def test_postgres_comes_back_with_its_databases(postgres: services.Postgres, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.sql("CREATE TABLE here (n int)", name)
    postgres.stop()
    postgres.start()
    assert postgres.sql("SELECT count(*) FROM here", name) == "0"


def test_redis_is_empty_for_each_test(redis_server: services.Redis, redis_url: str) -> None:
    def ask(command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", redis_server.port)) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(100)

    assert redis_url.startswith("redis://127.0.0.1:")
    assert ask(b"SET a 1") == b"+OK\r\n"
    redis_server.flush()
    assert ask(b"DBSIZE") == b":0\r\n"
    redis_server.stop()
    redis_server.start()
    assert ask(b"PING") == b"+PONG\r\n"


def test_what_is_missing_skips_or_in_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Redis is not installed; to install it: sudo apt-get"):
        services.find_redis()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Redis is not installed; to install it: sudo apt-get"):
        services.find_redis()


def test_node_has_the_locked_packages(node: Path) -> None:
    program = "import('ws').then((ws) => console.log(typeof ws.WebSocket))"
    result = subprocess.run([node, "-e", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "function\n"


def test_no_setting_of_a_developer_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [name for name in os.environ if name.startswith("TASKWIRE_") and "_TEST_" not in name]
    monkeypatch.setenv("TASKWIRE_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("WS_AUTH_TOKEN", "x")
    assert not {"TASKWIRE_LISTEN", "WS_AUTH_TOKEN"} & set(clean_environment())


def test_server_process_is_killed_and_restarted_at_one_address(server: ServerProcess) -> None:
    with server.client(server.login()) as client:
        task = client.post("/api/v1/tasks", json={"provider": "external", "prompt": "a lighthouse"}).json()
        first = server.pid
        server.kill9()
        assert not running(first)
        server.restart()
        assert server.pid != first
        assert client.get(f"/api/v1/tasks/{task['id']}").json()["prompt"] == "a lighthouse"
    assert server.rss() > 10_000_000
    assert server.terminate() == 0


def test_server_process_says_why_it_did_not_start(start_server: Callable[..., ServerProcess]) -> None:
    with pytest.raises(RuntimeError, match=r"instead of getting ready[\s\S]*no-such-option"):
        start_server(arguments=["--no-such-option"])
