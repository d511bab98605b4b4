"""Peer: python-socketio under uvicorn, in a virtual environment of its own (bench/requirements-peers.txt)."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from bench.peers.base import BENCH, CACHE, FOLDER, Command, Peer, SocketIO

VENV: Final = CACHE / "python-peers"
PYTHON: Final = VENV / "bin" / "python"
REQUIREMENTS: Final = BENCH / "requirements-peers.txt"


@cache
def install() -> str:
    """Make the environment if it is not there. Returns what went wrong, or an empty text."""
    done = VENV / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if done.exists() and done.read_text() == wanted:
        return ""
    CACHE.mkdir(exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        [str(PYTHON), "-m", "pip", "install", "-q", "--require-hashes", "-r", str(REQUIREMENTS)],
    ):
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            return f"{' '.join(command[1:4])} failed: {run.stderr.strip()[-300:]}"
    done.write_text(wanted)
    return ""


class PythonSocketIO(Peer):
    key = "python-socketio"
    label = "python-socketio"

    @classmethod
    def missing(cls) -> str:
        return install()

    @classmethod
    def version(cls) -> str:
        names = ("python-socketio", "uvicorn", "websockets", "uvloop")
        script = f"from importlib.metadata import version as v; print(', '.join(f'{{n}} {{v(n)}}' for n in {names}))"
        run = subprocess.run([str(PYTHON), "-c", script], capture_output=True, text=True)
        return f"{run.stdout.strip()} on Python {sys.version.split()[0]}"

    def command(self, port: int, folder: Path) -> Command:
        return Command(
            [
                str(PYTHON), "-m", "uvicorn", "python_socketio_app:application", "--app-dir", str(FOLDER),
                "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log",
                "--backlog", "4096",
            ]
        )  # fmt: skip

    def conversation(self, index: int) -> SocketIO:
        return SocketIO()
