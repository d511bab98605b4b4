"""What the services ask of providers: ``Provider``, and small interfaces for what one may be able to do beside."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from taskwire.core.tasks import Report, Task


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What providers are made from, out of the settings. ``render_max_size`` is "WIDTHxHEIGHT"."""

    media: Path
    render_workers: int
    render_max_size: str
    render_max_seconds: float
    render_max_fps: int


SendReport = Callable[[Report], Awaitable[None]]
"""Takes a report of the attempt that is run, returns after its commit; raises ``Superseded`` if the attempt is over."""


class Superseded(Exception):
    """The attempt has ended or was replaced: whoever works on it should stop."""


class Provider(Protocol):
    """Somebody who does tasks."""

    name: str
    reportable: bool
    """Whether producers report progress over the API; otherwise only the provider itself does."""

    def check_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The options with defaults filled in. Raises InvalidRequest naming the option and what was wanted."""
        ...


@runtime_checkable
class Runner(Protocol):
    """A provider whose work this process does itself."""

    capacity: int
    """Tasks run side by side on one node."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, task: Task, report: SendReport) -> None:
        """Do the present attempt of ``task`` to its end, which it reports.

        Cancelling the coroutine really stops the work. Any exception but ``Superseded`` fails the attempt.
        """
        ...

    async def forget(self, task_id: str) -> None:
        """Remove what the task's attempts left on disk."""
        ...
