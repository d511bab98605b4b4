"""What clients ask for, whichever contract they speak: the dialects decode their messages into these."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskwire.core.errors import TaskwireError


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Log in, or renew a login, with a JWT or API key. ``batch``: several pending updates may come as one message."""

    token: str
    batch: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow tasks to their end."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop following tasks."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refresh:
    """Give the newest state of tasks now, asking their providers if need be."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Is anybody there?"""


Command = Authenticate | Subscribe | Unsubscribe | Refresh | Ping


@dataclass(frozen=True, slots=True)
class Request:
    """A decoded message: the command, and what the contract needs to address the answer (its ``id``, if it had one)."""

    command: Command
    id: Any = None


class BadMessage(Exception):
    """A message that is refused: the error to answer, and the ``id`` to answer it to, as far as it could be read."""

    def __init__(self, error: TaskwireError, id: Any = None) -> None:
        self.error = error
        self.id = id
        super().__init__(error.message)


Payload = Mapping[str, Any]
