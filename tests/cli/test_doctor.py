"""``taskwire doctor`` finds what is wrong, says how to mend it, and changes nothing."""

import json
import resource
import shutil
import socket
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from taskwire.cli import doctor as module
from tests.cli.conftest import Run
from tests.support.processes import free_port
from tests.support.server import ServerProcess


@pytest.fixture(autouse=True)
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port to listen on, unless a test says otherwise."""
    number = free_port()
    monkeypatch.setenv("TASKWIRE_LISTEN", f"127.0.0.1:{number}")
    monkeypatch.setenv("TASKWIRE_MAX_CONNECTIONS", "10")
    return number


def examine(run: Run, *arguments: str, code: int = 0, **options: Any) -> dict[str, dict[str, str]]:
    """What was found, by name (the last of each)."""
    return {
        one["name"]: one
        for one in json.loads(run("doctor", "--json", *arguments, code=code, **options).stdout)
    }


def test_all_well(run: Run, place: Path) -> None:
    found = examine(run)
    assert {one["level"] for one in found.values()} == {"ok"}, found
    assert {
        "Python", "libraries", "H.264", "settings", "secret", "data folder", "free disk", "open files", "SQLite",
        "database", "broker", "port",
    } == found.keys()  # fmt: skip
    assert list(place.iterdir()) == []
    run("migrate")
    assert examine(run)["database"]["found"] == "sqlite:///data/taskwire.db is reachable and up to date"
    text = run("doctor").stdout
    assert len([line for line in text.splitlines() if line.startswith("✓ ok ")]) == len(found)


def test_the_cure_is_shown(run: Run) -> None:
    text = run("doctor", "--listen", "0.0.0.0:1", code=1).stdout
    assert "✗ fail" in text
    assert "→ Set TASKWIRE_SECRET" in text


def test_bad_settings(run: Run) -> None:
    found = examine(run, code=1, env={"TASKWIRE_LEASE": "never"})["settings"]
    assert (found["level"], found["found"]) == (
        "fail",
        "TASKWIRE_LEASE (environment): wanted a number, but got 'never'",
    )


def test_open_without_a_secret(run: Run) -> None:
    found = examine(run, "--listen", f"0.0.0.0:{free_port()}", code=1)
    assert (found["settings"]["level"], found["secret"]["level"]) == ("fail", "fail")
    assert "TASKWIRE_SECRET" in found["settings"]["cure"]
    assert examine(run, env={"TASKWIRE_SECRET": "s" * 32})["secret"]["found"] == "configured"


def test_an_identity_provider_without_an_audience(run: Run) -> None:
    found = examine(run, code=1, env={"TASKWIRE_JWKS_URL": "https://id.example/jwks"})["settings"]
    assert "TASKWIRE_JWT_AUDIENCE must be set" in found["found"]


def test_unknown_variables(run: Run) -> None:
    found = examine(run, env={"TASKWIRE_LISTNE": "x"})["settings"]
    assert (found["level"], found["found"]) == ("warn", "TASKWIRE_LISTNE is no setting")
    assert "TASKWIRE_LISTEN" in found["cure"]


def test_a_data_folder_that_cannot_be_written(run: Run, place: Path) -> None:
    (place / "file").write_text("")
    found = examine(run, "--data", "/proc/taskwire", "--database", "sqlite:///x.db", code=1)["data folder"]
    assert found["level"] == "fail"
    assert found["cure"]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("free", "level"), [(5_000_000_000, "ok"), (500_000_000, "warn"), (5_000_000, "fail")]
)
def test_free_disk(run: Run, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, free))
    assert examine(run, code=int(level == "fail"))["free disk"]["level"] == level


@pytest.mark.parametrize(("limit", "level"), [(100, "warn"), (10_000, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_open_files(run: Run, monkeypatch: pytest.MonkeyPatch, limit: int, level: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    found = examine(run)["open files"]
    assert found["level"] == level
    assert level == "ok" or "ulimit -n 210" in found["cure"]


def test_an_old_sqlite(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 9))
    assert examine(run, code=1)["SQLite"]["level"] == "fail"


def test_an_old_python(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PYTHON", (3, 99))
    assert "Use Python 3.99 or later" in examine(run, code=1)["Python"]["cure"]


def test_a_missing_library(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "library_versions", lambda: {"uvicorn": "1", "av": "missing"})
    assert "av is missing" in examine(run, code=1)["libraries"]["cure"]


def test_no_encoder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENCODERS", ("libnone",))
    assert examine(run)["H.264"]["level"] == "warn"


def test_a_database_that_lacks_migrations(run: Run, place: Path) -> None:
    (place / "old.db").touch()
    found = examine(run, "--database", "sqlite:///old.db")["database"]
    assert found["level"] == "warn"
    assert "taskwire migrate" in found["cure"]


def test_a_database_that_is_away(run: Run) -> None:
    found = examine(run, "--database", "postgresql://ada:hunter2@127.0.0.1:1/x", code=1)["database"]
    assert found["level"] == "fail"
    assert "postgresql://ada:***@127.0.0.1:1/x" in found["found"]
    assert "hunter2" not in json.dumps(found)


def test_a_database_that_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        found = examine(run, "--database", url, code=1)["database"]
    assert "does not answer" in found["found"]


def test_postgres(run: Run, postgres_url: str) -> None:
    found = examine(run, "--database", postgres_url)
    assert found["database"]["level"] == "warn"
    assert found["secret"]["level"] == "warn"
    assert "SQLite" not in found
    run("migrate", "--database", postgres_url)
    assert examine(run, "--database", postgres_url)["database"]["level"] == "ok"


def test_a_broker_of_an_unknown_kind(run: Run) -> None:
    found = examine(run, "--broker", "kafka://:hunter2@x", code=1)["broker"]
    assert found["level"] == "fail"
    assert "hunter2" not in json.dumps(found)


def test_a_port_taken_by_another_program(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        found = examine(run, "--listen", address, code=1)["port"]
    assert found["found"] == f"{address} is taken by another program"


def test_an_address_of_another_machine(run: Run) -> None:
    found = examine(run, "--listen", "192.0.2.1:3000", code=1, env={"TASKWIRE_SECRET": "s" * 32})["port"]
    assert found["level"] == "fail"


def test_a_server_that_runs(run: Run, server: ServerProcess) -> None:
    found = examine(run, "--listen", f"127.0.0.1:{server.port}", "--data", str(server.data))
    assert found["port"]["found"].endswith("a server is running there and ready")
    assert found["database"]["level"] == "ok"
