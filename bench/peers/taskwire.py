"""Taskwire itself. Every delivery takes the real path: report over REST, state machine, commit, push."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from bench.peers.base import DIGITS, Command, Peer, mark
from bench.product import ADMIN, PRODUCER, Api, Watcher, environment, executable, serve_command

ROOM: Final = 5 + DIGITS
"""Characters of a report's ``message``: the sequence number alone."""


class Taskwire(Peer):
    """One external task of the producer, followed by the admin, so that a report is one message for each watcher."""

    key = "taskwire"
    label = "Taskwire"
    ready_path = "/readyz"

    _token = ""
    _task = ""
    _producer: Api | None = None

    @classmethod
    def missing(cls) -> str:
        return "" if executable() else "the taskwire command is not installed in this environment"

    @classmethod
    def version(cls) -> str:
        found = []
        for name in ("taskwire", "uvicorn", "websockets", "uvloop", "SQLAlchemy"):
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                continue
        return f"{', '.join(found)} on Python {platform.python_version()}"

    def command(self, port: int, folder: Path) -> Command:
        return Command(serve_command(port, folder / "data"), environment(), folder)

    async def prepare(self, port: int) -> None:
        admin = await Api.connect(port, ADMIN)
        await admin.add_user(PRODUCER)
        self._token = admin.token
        admin.close()
        self._producer = await Api.connect(port, PRODUCER)
        self._task = (await self._producer.add_tasks(1))[0]
        self._producer.close()

    def conversation(self, index: int) -> Watcher:
        return Watcher(self._token, self._task)

    def publication(self, number: int) -> bytes:
        assert self._producer is not None, "prepare() comes first"
        report = {"status": "PROCESSING", "progress": 42, "currentStep": 42, "totalSteps": 100}
        report |= {"message": mark(number, ROOM), "estimatedTimeRemaining": 12}
        return self._producer.request("POST", f"/tasks/{self._task}/reports", report)
