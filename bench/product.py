"""Taskwire as the bench uses it: the command that serves it, its REST interface, and a watcher's conversation."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bench.load.http import Answer, HttpClient, HttpError, request_bytes
from bench.load.subscriber import READY

HOST: Final = "127.0.0.1"
ADMIN: Final = "admin"
PRODUCER: Final = "producer"
PASSWORD: Final = "bench-only-password"
UNLIMITED: Final = "1000000"

ENVIRONMENT: Final[Mapping[str, str]] = {
    "TASKWIRE_ADMIN_PASSWORD": PASSWORD,
    # All watchers are one user at one address here, so the limits against a single misbehaving client must be wide.
    "TASKWIRE_MAX_CONNECTIONS": UNLIMITED,
    "TASKWIRE_MAX_CONNECTIONS_PER_USER": UNLIMITED,
    "TASKWIRE_MAX_CONNECTIONS_PER_ADDRESS": UNLIMITED,
    "TASKWIRE_LOG_LEVEL": "warning",
}


def executable() -> str:
    """The ``taskwire`` command of this environment; empty if it is not installed."""
    beside = Path(sys.executable).with_name("taskwire")
    return str(beside) if beside.exists() else shutil.which("taskwire") or ""


def serve_command(port: int, data: Path) -> list[str]:
    """``taskwire serve`` in demo mode on one loopback port."""
    return [executable(), "serve", "--demo", "--listen", f"{HOST}:{port}", "--data", str(data)]


class Api:
    """The REST interface over one connection, as one user."""

    def __init__(self, client: HttpClient, token: str = "") -> None:
        self.client = client
        self.token = token

    @classmethod
    async def connect(cls, port: int, username: str = "", password: str = PASSWORD) -> "Api":
        """Open a connection and log in if a user name is given."""
        api = cls(await HttpClient.connect(HOST, port))
        if username:
            login = {"username": username, "password": password}
            api.token = (await api.client.call("POST", "/api/v1/auth/login", login))["token"]
        return api

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call; raises HttpError for a refusal."""
        return await self.client.call(method, f"/api/v1{path}", body, token=self.token)

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """A request to be sent later."""
        fields = {"Authorization": f"Bearer {self.token}"}
        return request_bytes(method, f"/api/v1{path}", b"" if body is None else orjson.dumps(body), fields)

    async def add_user(self, username: str) -> None:
        """Make an ordinary user with the bench's password."""
        await self.call("POST", "/users", {"username": username, "password": PASSWORD})

    async def add_tasks(self, count: int, provider: str = "external", options: Any = None) -> list[str]:
        """Make tasks, a few requests at a time; returns their ids."""
        ids: list[str] = []
        while len(ids) < count:
            body = {"provider": provider, "prompt": "bench", "title": "bench", "options": options or {}}
            request = self.request("POST", "/tasks", body)
            answers = [self.client.send(request) for _ in range(min(64, count - len(ids)))]
            ids += [checked(await answer)["id"] for answer in answers]
        return ids

    def close(self) -> None:
        self.client.close()


def checked(answer: Answer) -> Any:
    """The JSON of a good answer; raises HttpError with the body of a bad one."""
    if answer.status >= 400:
        raise HttpError(f"{answer.status} {answer.body[:300]!r}")
    return orjson.loads(answer.body)


def subscribe_text(task_id: str) -> str:
    """The client message that subscribes to a task."""
    return f'{{"type":"subscribe_task","payload":{{"videoId":"{task_id}"}}}}'


def auth_text(token: str) -> str:
    """The client message that logs in."""
    return f'{{"type":"auth","payload":{{"token":"{token}"}}}}'


class Watcher:
    """A client of the *tasks* contract that follows one task: login and subscription without waiting in between.

    READY means that login, subscription and snapshot have all arrived. The snapshot is kept.
    """

    __slots__ = ("_task", "_token", "snapshot")

    _PARTS: Final[Mapping[str, int]] = {
        "authSuccess": 1, "subscribeSuccess": 2, "taskProgress": 4, "taskCompleted": 4, "taskFailed": 4,
    }  # fmt: skip
    _ALL: Final = 7

    def __init__(self, token: str, task: str) -> None:
        self._token = token
        self._task = task
        self.snapshot = b""

    def path(self) -> str:
        return "/ws"

    def opening(self) -> tuple[Sequence[str], int]:
        return (auth_text(self._token), subscribe_text(self._task)), 0

    def answer(self, stage: int, message: bytes) -> tuple[Sequence[str], int]:
        if stage == READY:
            return (), READY
        part = self._PARTS.get(orjson.loads(message)["type"], 0)
        if part == 4:
            self.snapshot = message
        stage |= part
        return (), READY if stage == self._ALL else stage

    def is_control(self, message: bytes) -> bool:
        return message.startswith(b'{"type":"heartbeat"')


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The server's variables: the bench's, and none that happen to be set outside."""
    outside = {name: "" for name in os.environ if name.startswith(("TASKWIRE_", "WS_"))}
    return {**outside, **ENVIRONMENT, **(extra or {})}
