"""Private PostgreSQL and Redis servers of the installed programs, and where Chromium and Node are.

What is missing skips the test with the reason and the cure; with CI=true it fails it.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NoReturn, Self

import pytest

from tests.support.processes import free_port, spawn, stop
from tests.support.timing import eventually

ROOT: Final = Path(__file__).resolve().parents[2]


def missing(what: str, cure: str) -> NoReturn:
    """Skip the present test for want of ``what``; fail it with CI=true, where everything must be there."""
    reason = f"{what} is not installed; to install it: {cure}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs, the newest version's; skips without one."""

    def version(folder: Path) -> int:
        number = re.match(r"\d+", folder.parent.name)
        return int(number[0]) if number else 0

    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if folders:
        return max(folders, key=version)
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    missing("PostgreSQL", "sudo apt-get install postgresql")


def find_redis() -> Path:
    """The program redis-server; skips without it."""
    if found := shutil.which("redis-server"):
        return Path(found)
    missing("Redis", "sudo apt-get install redis-server")


def find_chromium() -> Path:
    """The browser; skips without it."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    missing("Chromium", "sudo apt-get install chromium")


def find_node() -> Path:
    """Node.js, with the packages of package-lock.json beside it; skips without either."""
    found = shutil.which("node")
    if not found:
        missing("Node.js 20 or later", "sudo apt-get install nodejs npm")
    if not (ROOT / "node_modules" / ".installed").exists():
        missing("what the JavaScript tests import", "tools/node.sh")
    return Path(found)


class Service(ABC):
    """A server program on a free loopback port, with its files in a temporary folder that goes with it."""

    READY: Final = "eady to accept connections"  # what both PostgreSQL and Redis log then

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"taskwire-{name}-"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the program on ``port``, writing to ``log``."""

    @abstractmethod
    def stop(self) -> None:
        """End the program; ``start`` brings it back on the same port."""

    def start(self) -> None:
        """Start the program and wait until it serves. The first time it gets a free port, and keeps it."""
        new = not self.port
        for _ in range(5 if new else 1):  # something else may take a free port just before the program does
            self.port = free_port() if new else self.port
            with (self.folder / "log").open("wb") as log:
                process = self._process = self._launch(log)
            if self._is_ready(process):
                return
        raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log()}")

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the program serves (true) or has ended (false)."""
        eventually(lambda: self.READY in self.log() or process.poll() is not None, 60)
        return process.poll() is None

    def log(self) -> str:
        """What the program has written since its last start."""
        return (self.folder / "log").read_text(errors="replace")

    def close(self) -> None:
        """End the program and remove its files."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()


class Postgres(Service):
    """A private PostgreSQL, for any number of fresh databases."""

    USER: Final = "taskwire"

    def __init__(self) -> None:
        self._programs = find_postgres()
        super().__init__("postgres")
        self._numbers = count(1)
        # PostgreSQL refuses to run as root: then it runs as another user, to whom the folder is given.
        self._user = _unprivileged_user() if os.geteuid() == 0 else None

    def start(self) -> None:
        if not (self.folder / "data").exists():
            if self._user:
                shutil.chown(self.folder, self._user)
            self._run("initdb", "-D", self.folder / "data", "-U", self.USER, "-A", "trust", "-E", "UTF8", "--locale=C",
                      "--no-sync", "--no-instructions")  # fmt: skip
        super().start()

    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        # No fsync: the loss of the machine's power is not among the tests, and each of them makes a database.
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "fsync=off",
                    "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB")  # fmt: skip
        data = self.folder / "data"
        command: list[str | Path] = [self._programs / "postgres", "-D", data, "-p", str(self.port)]
        command += [part for setting in settings for part in ("-c", setting)]
        # QUIT is the immediate shutdown, which takes its children and its shared memory along.
        return spawn(command, user=self._user, cwd=self.folder, stdout=log, stderr=log, parent_death="QUIT")

    def stop(self) -> None:
        if self._process:
            stop(self._process, signal.SIGINT, signal.SIGQUIT)

    def create_database(self) -> str:
        """Make an empty database, and return its URL: ``postgresql://USER@127.0.0.1:PORT/NAME``."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE template0")
        return f"postgresql://{self.USER}@127.0.0.1:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.sql(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement, and return what psql prints of its result: a line per row, ``|`` between columns."""
        return self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.USER, "-d", database, "-qAtX",
                         "-v", "ON_ERROR_STOP=1", "-c", statement)  # fmt: skip

    def _run(self, program: str, *arguments: str | Path) -> str:
        command = [self._programs / program, *arguments]
        process = spawn(
            command, user=self._user, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{program} failed with {process.returncode}: {err.decode(errors='replace')}")
        return out.decode().rstrip("\n")


class Redis(Service):
    """A private Redis that keeps nothing on disk."""

    def __init__(self) -> None:
        self._program = find_redis()
        super().__init__("redis")

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [self._program, "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--save", "", "--appendonly", "no", "--dir", self.folder]
        return spawn(command, cwd=self.folder, stdout=log, stderr=log)

    def stop(self) -> None:
        """End it as a crash would; everything in it is gone."""
        if self._process:
            stop(self._process, signal.SIGKILL)

    def flush(self) -> None:
        """Forget everything."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            if (answer := connection.recv(64)) != b"+OK\r\n":
                raise RuntimeError(f"Redis answered FLUSHALL with {answer!r}")


def _unprivileged_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    missing("a user 'postgres' or 'nobody', for PostgreSQL to run as", "sudo adduser --system postgres")
