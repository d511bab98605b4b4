"""A place of its own for every command that is run: folder, home, and logging as it was before."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from taskwire import logs
from taskwire.cli.main import app
from taskwire.masking import forget_secrets

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder: no ``.env``, no ``taskwire.toml``, no logins saved by somebody else."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = logging.getLogger()
    handlers, level, output = root.handlers[:], root.level, vars(logs._output).copy()
    yield folder
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    vars(logs._output).update(output)
    structlog.reset_defaults()
    forget_secrets()


@pytest.fixture
def run() -> Run:
    """Run ``taskwire`` with some arguments in this process; the exit code must be ``code``."""

    def call(
        *arguments: object, code: int = 0, input: str | None = None, env: Mapping[str, str] | None = None
    ) -> Result:
        words = [str(argument) for argument in arguments]
        result = CliRunner().invoke(app, words, input=input, env=env, prog_name="taskwire")
        said = f"{arguments} ended with {result.exit_code}:\n{result.stdout}\n{result.stderr}"
        assert result.exit_code == code, said
        assert result.exception is None or isinstance(result.exception, SystemExit), said
        assert "Traceback" not in result.output
        return result

    return call


def one_line(result: Result) -> str:
    """What a failed command said: one line on standard error, and nothing on standard output."""
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("taskwire: ")
    return lines[0].removeprefix("taskwire: ")
