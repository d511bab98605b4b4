"""The server in a process of its own, as its users run it: to be started, killed, restarted and spoken to."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from tests.support.processes import free_port, kill_group, spawn, stop
from tests.support.timing import eventually, scaled

ADMIN_PASSWORD: Final = "an admin password for tests"


class ServerProcess:
    """``python -m taskwire serve --demo`` on a free loopback port, with its data in a folder.

    ``arguments`` are added to the command, ``env`` to the environment, which is the tests' own without any setting of
    Taskwire. The address and the data stay the same over restarts. As a context manager it starts on entry, and on
    exit ends with everything it started.
    """

    def __init__(
        self,
        folder: Path,
        *,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        demo: bool = True,
        port: int | None = None,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = port or free_port()
        self._arguments = [*(["--demo"] if demo else []), *arguments]
        self._env = {**clean_environment(), "TASKWIRE_ADMIN_PASSWORD": ADMIN_PASSWORD, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def ws_url(self, path: str = "/ws") -> str:
        """``ws://127.0.0.1:PORT`` and the path."""
        return f"ws://127.0.0.1:{self.port}{path}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    def start(self, timeout: float = 30) -> Self:
        """Start the server, and wait until ``/readyz`` answers 200; RuntimeError with the log if it ends before."""
        if self._process:
            raise RuntimeError("the server is running already")
        self.data.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "taskwire", "serve", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--data", str(self.data), *self._arguments]
        with self._log.open("ab") as log:
            # Started in a folder without .env and taskwire.toml, so that no settings of a developer's come in.
            self._process = spawn(command, env=self._env, cwd=self.folder, stdout=log, stderr=log)
        try:
            eventually(self._ready, timeout, every=0.03)
        except BaseException:
            self.close()
            raise
        return self

    def _ready(self) -> bool:
        code = self._running().poll()
        if code is not None:
            raise RuntimeError(
                f"the server ended with {code} instead of getting ready:\n{self.log()[-5000:]}"
            )
        try:
            return httpx.get(f"{self.url}/readyz", timeout=scaled(5), trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def kill9(self) -> None:
        """Kill the server process, and it alone, as a crash does; what it started is left to find that out."""
        process = self._running()
        process.send_signal(signal.SIGKILL)
        process.wait()
        self._process = None

    def terminate(self, patience: float = 30) -> int:
        """Ask the server to end (SIGTERM), and return its exit code; it must be gone within ``patience`` seconds."""
        process, self._process = self._running(), None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(scaled(patience))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not end within {scaled(patience):g} s of SIGTERM") from None
        finally:
            kill_group(process)

    def restart(self, timeout: float = 30) -> Self:
        """End the server if it runs, and start it again with the same address and data."""
        if self._process:
            self.terminate()
        return self.start(timeout)

    def close(self) -> None:
        """End the server without ceremony, and all it started."""
        process, self._process = self._process, None
        if process:
            stop(process, signal.SIGTERM, patience=1)

    def log(self) -> str:
        """What the server has written since the first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def rss(self) -> int:
        """Resident memory of the server process, in bytes (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def login(self, username: str = "admin", password: str = ADMIN_PASSWORD) -> str:
        """Log in over REST, and return the JWT."""
        with self.client(token=None) as client:
            answer = client.post("/api/v1/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, f"login answered {answer.status_code}: {answer.text}"
        token: str = answer.json()["token"]
        return token

    def client(self, token: str | None) -> httpx.Client:
        """A REST client: paths are relative to ``url``; every request carries ``token`` (a JWT or an API key)."""
        return httpx.Client(**self._client_options(token))

    def async_client(self, token: str | None) -> httpx.AsyncClient:
        """The same for asyncio."""
        return httpx.AsyncClient(**self._client_options(token))

    def _client_options(self, token: str | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return {"base_url": self.url, "headers": headers, "timeout": scaled(30), "trust_env": False}

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _running(self) -> subprocess.Popen[bytes]:
        if not self._process:
            raise RuntimeError("the server is not running")
        return self._process

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()


def clean_environment() -> dict[str, str]:
    """The present environment without any setting of Taskwire's, so that a developer's own do not come in."""
    return {name: value for name, value in os.environ.items() if not is_setting(name)}


def is_setting(name: str) -> bool:
    """Whether an environment variable is a setting of Taskwire's; the tests' own are not."""
    return name.startswith(("TASKWIRE_", "WS_")) and not name.startswith("TASKWIRE_TEST_")
