"""docs/operations.md, against a server: the metrics are those it tells of, and its commands do what it says."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from taskwire.cli.main import app
from tests.support import markdown
from tests.support.server import ServerProcess

TEXT: Final = markdown.read("docs/operations.md")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of this file."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_metrics_are_those_that_are_exported(server: ServerProcess) -> None:
    with server.client(None) as client:
        exported = client.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", exported, re.MULTILINE))
    kinds = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
    told = {
        markdown.codes(cells[0])[0]: cells[1]
        for cells in markdown.rows(markdown.section(TEXT, "Metrics"))
        if len(cells) == 3
    }
    assert told == kinds


def test_labels_are_those_that_are_exported(server: ServerProcess) -> None:
    with server.client(None) as client:
        client.get("/ws/nowhere", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        exported = client.get("/metrics").text
    assert re.search(r'^taskwire_refused_total\{reason="\w+"\} 1', exported, re.MULTILINE)
    assert "by `reason`" in TEXT
    assert "by `code`" in TEXT


def test_lines_of_the_log_look_like_the_one_shown(server: ServerProcess) -> None:
    (block,) = markdown.blocks(TEXT, "json")
    shown = json.loads(block.text)
    lines = [json.loads(line) for line in server.log().splitlines()]
    (started,) = [line for line in lines if line["event"] == shown["event"]]
    assert markdown.differences(shown, started) == []
    assert list(started)[:3] == ["timestamp", "level", "event"]


def test_the_data_folder_holds_what_is_told(server: ServerProcess) -> None:
    table = [cells for cells in markdown.rows(TEXT.partition("## ")[0]) if cells[1]]
    told = {name.rstrip("/") for cells in table for name in markdown.codes(cells[0])}
    assert told == {"taskwire.db", "-wal", "-shm", "media", "secret"}
    assert {path.name for path in server.data.iterdir()} == {
        "taskwire.db", "taskwire.db-wal", "taskwire.db-shm", "media", "secret"
    }  # fmt: skip
    assert (server.data / "secret").stat().st_mode & 0o077 == 0


def test_the_backup_is_whole(server: ServerProcess) -> None:
    with server.client(server.login()) as client:
        task = client.post("/api/v1/tasks", json={"prompt": "Rain", "provider": "external"}).json()["id"]
    (block,) = markdown.blocks(TEXT, "sh")
    shim(server.folder)
    subprocess.run(["bash", "-euc", block.text], cwd=server.folder, check=True)
    copy = sqlite3.connect(server.folder / "backup.db")
    assert copy.execute("SELECT id FROM tasks").fetchall() == [(task,)]
    copy.close()


def shim(folder: Path) -> None:
    """Make ``.venv/bin/python`` and ``.venv/bin/taskwire`` in ``folder`` those that the tests run with."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, command in (("python", [sys.executable]), ("taskwire", [sys.executable, "-m", "taskwire"])):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (programs / name).chmod(0o755)


@pytest.mark.parametrize("block", markdown.blocks(TEXT, "console"), ids=lambda block: block.heading)
def test_commands_are_commands(block: markdown.Block) -> None:
    root: Any = typer.main.get_command(app)
    for line in re.findall(r"^\$ (.*)$", block.text, re.MULTILINE):
        words = shlex.split(line)
        name, *rest = words[words.index("taskwire") + 1 :]
        assert root.commands[name].make_context(name, rest)


def test_it_stops_as_told(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server()
    assert "exit code 0" in markdown.section(TEXT, "Starting and stopping")
    assert server.terminate() == 0
    events = [json.loads(line)["event"] for line in server.log().splitlines()]
    assert events[-1] == "server.stopped"
