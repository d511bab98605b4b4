"""A provider for tests whose work is told what to do, and services around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from taskwire.core.errors import InvalidRequest
from taskwire.core.events import Event
from taskwire.core.principals import Principal
from taskwire.core.tasks import Task
from taskwire.providers.external import External
from taskwire.services.dispatch import Dispatcher
from taskwire.services.ports import SendReport
from taskwire.services.tasks import TaskDraft, TaskService
from tests.support.store import Store, open_store

Script = Callable[[Task, SendReport], Awaitable[None]]

ANN = Principal("ann", "ann", teams=frozenset({"blue"}))
BOB = Principal("bob", "bob", teams=frozenset({"blue", "red"}))
EVE = Principal("eve", "eve", teams=frozenset({"green"}))
ROOT = Principal("root", "root", is_admin=True)


class FakeRunner:
    """Implements ``Provider`` and ``Runner``: every attempt does what ``script`` says."""

    name = "fake"
    reportable = False

    def __init__(self, script: Script, capacity: int = 2) -> None:
        self.script = script
        self.capacity = capacity
        self.runs: list[tuple[str, int]] = []
        self.stopped: list[str] = []
        self.forgotten: list[str] = []
        self.started = 0
        self.closed = 0
        self.busy = 0
        self.busiest = 0

    def check_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if unknown := set(options) - {"size"}:
            raise InvalidRequest(f"`options`: there is no {unknown.pop()}")
        return {"size": "1x1", **options}

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.closed += 1

    async def run(self, task: Task, report: SendReport) -> None:
        self.runs.append((task.spec.id, task.state.attempt))
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            await self.script(task, report)
        except asyncio.CancelledError:
            self.stopped.append(task.spec.id)
            raise
        finally:
            self.busy -= 1

    async def forget(self, task_id: str) -> None:
        self.forgotten.append(task_id)


@dataclass
class Node:
    """A node's services over a store."""

    store: Store
    tasks: TaskService
    runner: FakeRunner
    dispatcher: Dispatcher

    async def create(self, principal: Principal = ANN, **draft: Any) -> Task:
        made, new = await self.tasks.create(
            principal, TaskDraft(**{"prompt": "p", "provider": "fake", **draft})
        )
        assert new
        return made


async def do_nothing(task: Task, report: SendReport) -> None:
    """Work that never ends by itself."""
    await asyncio.Event().wait()


@asynccontextmanager
async def open_node(
    url: str,
    script: Script = do_nothing,
    *,
    name: str = "node-1",
    capacity: int = 2,
    lease: float = 30,
    max_attempts: int = 3,
    max_waiting: int = 100,
    started: bool = True,
    runner: FakeRunner | None = None,
) -> AsyncIterator[Node]:
    """A node; its dispatcher runs when ``started``."""
    used = runner or FakeRunner(script, capacity)

    def publish(events: Sequence[Event]) -> None:
        dispatcher.notice(events)

    async with open_store(url, publish=publish) as store:
        tasks = TaskService(
            writer=store.writer,
            reader=store.reader,
            table=store.table,
            providers={"external": External(), "fake": used},
            clock=lambda: store.now,
            max_waiting=max_waiting,
        )
        dispatcher = Dispatcher(
            tasks=tasks,
            reader=store.reader,
            providers={"external": External(), "fake": used},
            node=name,
            clock=lambda: store.now,
            lease=lease,
            max_attempts=max_attempts,
        )
        if started:
            await dispatcher.start()
        try:
            yield Node(store, tasks, used, dispatcher)
        finally:
            if started:
                await dispatcher.close()
