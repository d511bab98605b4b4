"""The command as a whole: help everywhere, one clear line for what goes wrong, exit codes 1 and 2, no traceback."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from taskwire import __version__
from taskwire.cli import errors
from taskwire.cli import version as version_command
from taskwire.cli.main import app
from tests.cli.conftest import Run, one_line
from tests.support.server import clean_environment


def commands() -> Iterator[list[str]]:
    """Every command and group, as its words."""

    def walk(command: object, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, [*path, name])

    return walk(typer.main.get_command(app), [])


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help(run: Run, path: list[str]) -> None:
    for option in ("--help", "-h"):
        assert " ".join(["Usage: taskwire", *path]) in run(*path, option).stdout


def test_wrong_use(run: Run) -> None:
    assert "No such command 'sevre'. Did you mean 'serve'" in one_line(run("sevre", code=2))
    assert "Missing argument 'PROMPT'. See `taskwire task create --help`." in one_line(
        run("task", "create", code=2)
    )
    assert "No such option" in one_line(run("serve", "--lissten", "x", code=2))
    assert "Usage: taskwire task" in run("task", code=2).stdout


def test_version(run: Run) -> None:
    assert run("version").stdout.startswith(f"taskwire {__version__}\n")
    found = json.loads(run("version", "--json").stdout)
    assert found["taskwire"] == __version__
    assert "missing" not in found.values()
    assert {"python", *version_command.LIBRARIES} <= found.keys()


def test_unforeseen_errors_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, str]:
        raise RuntimeError("token=hunter2 was wrong")

    monkeypatch.setattr(version_command, "library_versions", fail)
    said = one_line(run("version", code=1))
    assert said.startswith("RuntimeError: token=*** was wrong")
    assert "--debug" in said
    assert isinstance(CliRunner().invoke(app, ["--debug", "version"]).exception, RuntimeError)
    assert isinstance(
        CliRunner().invoke(app, ["version"], env={"TASKWIRE_DEBUG": "1"}).exception, RuntimeError
    )


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(version_command, "library_versions", interrupt)
    assert CliRunner().invoke(app, ["version"]).exit_code == errors.INTERRUPTED


def test_python_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskwire", "version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert done.stdout.startswith(f"taskwire {__version__}\n")
