"""The README's commands and its program do what it says, from a clean folder."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support import markdown, processes, services
from tests.support.server import ServerProcess, clean_environment
from tests.support.timing import eventually, scaled

TEXT: Final = markdown.read("README.md")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of this file."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


def test_the_first_steps_end_with_a_video(server: ServerProcess) -> None:
    """What is to be typed into a second terminal, while ``make run`` serves in the first."""
    _, steps, *_ = markdown.blocks(TEXT, "sh")
    assert "taskwire token" in steps.text
    programs = server.folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "taskwire").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m taskwire "$@"\n')
    (programs / "taskwire").chmod(0o755)
    env = clean_environment() | {"TASKWIRE_URL": server.url, "HOME": str(server.folder)}
    done = subprocess.run(
        ["bash", "-euc", steps.text],
        cwd=server.folder,
        env=env,
        capture_output=True,
        check=False,
        timeout=scaled(100),
    )
    assert done.returncode == 0, done.stderr.decode()
    address = done.stdout.decode().splitlines()[-1]
    answer = httpx.get(address, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content[4:8] == b"ftyp"


def test_the_program_follows_a_task(server: ServerProcess, tmp_path: Path, node: Path) -> None:
    (program,) = markdown.blocks(TEXT, "js")
    assert len(program.text.splitlines()) <= 14
    token = server.login()
    with server.client(token) as rest:
        body = {"prompt": "Rain", "options": {"size": "320x180", "seconds": 1}}
        task = rest.post("/api/v1/tasks", json=body).json()["id"]
    script = tmp_path / "program.mjs"
    here = program.text.replace("ws://127.0.0.1:3000/ws", server.ws_url())
    assert here != program.text
    script.write_text(
        f'import {{ createRequire }} from "node:module";\n'
        f'const WebSocket = createRequire("{services.ROOT}/")("ws");\n'
        f'const [token, videoId] = ["{token}", "{task}"];\n{here}'
    )
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = processes.spawn([node, script], stdout=file, stderr=file, env=dict(os.environ))
    try:
        eventually(lambda: output.read_text().endswith("video.mp4\n"), 60)
    finally:
        processes.stop(process)
    lines = output.read_text().splitlines()
    assert lines[-1].startswith(server.url)
    assert all(" % " in line for line in lines[:-1])


def test_what_is_said_of_the_commands_is_true(start_server: Callable[..., ServerProcess]) -> None:
    """The password of ``admin`` is printed once, and not again at the next start."""
    server = start_server(env={"TASKWIRE_ADMIN_PASSWORD": ""})
    assert server.log().count("shown this once only") == 1
    server.restart()
    assert server.log().count("shown this once only") == 1
