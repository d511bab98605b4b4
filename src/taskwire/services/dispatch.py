"""Runs the work that providers do in this process: takes tasks from the database by lease, and sees each to its end.

The database is the queue, so nothing is lost with a process: a node holds a lease on what it works on and renews it;
when it dies, the lease runs out (or the same node comes back) and the task is taken up again as a new attempt. A node
that lost its lease without noticing cannot do harm: its reports name an attempt that is over.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from taskwire.core.errors import Unavailable
from taskwire.core.events import Event, Urgency
from taskwire.core.tasks import FAILED, PROCESSING, QUEUED, Report, Task, TaskError, Verdict
from taskwire.services.ports import Provider, Runner, Superseded
from taskwire.services.tasks import Reported, TaskService
from taskwire.store.tasks import TaskReader

log = structlog.get_logger(__name__)

SEND_RETRY: Final = 1.0
"""Seconds until a report that could not be stored is tried again."""


class Dispatcher:
    """One per node. ``node`` names it; what was leased to that name before a restart is taken back at once."""

    def __init__(
        self,
        *,
        tasks: TaskService,
        reader: TaskReader,
        providers: Mapping[str, Provider],
        node: str,
        clock: Callable[[], int],
        lease: float,
        max_attempts: int,
    ) -> None:
        self._tasks = tasks
        self._reader = reader
        self._runners = {
            name: provider for name, provider in providers.items() if isinstance(provider, Runner)
        }
        self._node = node
        self._clock = clock
        self._lease_ms = int(lease * 1000)
        self._max_attempts = max_attempts
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._renew_task: asyncio.Task[None] | None = None
        self._fresh = True  # not yet looked for what this node held before its restart

    @property
    def running(self) -> int:
        """Tasks under way on this node."""
        return len(self._running)

    async def start(self) -> None:
        for runner in self._runners.values():
            await runner.start()
        loop = asyncio.get_running_loop()
        self._loop_task = loop.create_task(self._run(), name="dispatcher")
        self._renew_task = loop.create_task(self._renew(), name="dispatcher-leases")

    async def close(self) -> None:
        """Stop the work under way and give its leases back; the next node, or the next start, takes it up again."""
        loops = [task for task in (self._loop_task, self._renew_task) if task is not None]
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        held = list(self._running)
        for work in list(self._running.values()):
            work.cancel()
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=10)
        for id in held:
            await self._hand_back(id)
        for runner in self._runners.values():
            await runner.close()

    async def _hand_back(self, id: str) -> None:
        """Queue work that this restart cuts off, as its next attempt, and let go of it."""
        try:
            await self._tasks.interrupted(id, actor="system", crashed=False, max_crashes=self._max_attempts)
            await self._reader.release([id], self._node)
        except Exception:
            log.warning("dispatch.hand_back_failed", taskId=id, exc_info=True)

    def notice(self, events: Sequence[Event]) -> None:
        """Look at freshly committed events: new work to take, cancelled work to stop."""
        for event in events:
            if event.urgency is Urgency.PROGRESS or not isinstance(event.entity, Task):
                continue
            task = event.entity
            if task.spec.provider not in self._runners:
                continue
            if task.state.status is QUEUED:
                self._wake.set()
            elif event.urgency is Urgency.FINAL and (work := self._running.get(task.spec.id)) is not None:
                work.cancel()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._take()
            except Exception:
                log.exception("dispatch.take_failed")
            try:
                async with asyncio.timeout(self._lease_ms / 3000):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _take(self) -> None:
        """Claim as many tasks as there is room for, and set to work on them."""
        for name, runner in self._runners.items():
            room = runner.capacity - sum(1 for work in self._running.values() if work.get_name() == name)
            if room <= 0:
                continue
            now = self._clock()
            found = await self._reader.claim(
                [name], self._node, now=now, until=now + self._lease_ms, limit=room, take_own=self._fresh
            )
            for task in found:
                if task.spec.id not in self._running:
                    work = asyncio.get_running_loop().create_task(self._work(runner, task), name=name)
                    self._running[task.spec.id] = work
        self._fresh = False

    async def _work(self, runner: Runner, task: Task) -> None:
        """See one task to its end. Cancelled when the task is cancelled, and when the server stops."""
        id, actor = task.spec.id, f"provider:{task.spec.provider}"
        stopping = False
        try:
            current: Task | None = task
            if task.state.status is PROCESSING:
                # In good order it would have been handed back: whoever worked on it has crashed.
                current = await self._tasks.interrupted(
                    id, actor=actor, crashed=True, max_crashes=self._max_attempts - 1
                )
            if current is not None and not current.state.finished:
                await self._attempt(runner, current, actor)
        except asyncio.CancelledError:
            stopping = self._loop_task is None or self._loop_task.cancelling() > 0
        except Exception:
            log.exception("dispatch.work_failed", taskId=id)
        finally:
            self._running.pop(id, None)
        if not stopping:
            try:
                await self._reader.release([id], self._node)
            except Exception:
                log.warning("dispatch.release_failed", taskId=id, exc_info=True)
        self._wake.set()  # there is room; and the task itself, if somebody retried it, can be had again

    async def _attempt(self, runner: Runner, task: Task, actor: str) -> None:
        attempt = task.state.attempt

        async def send(report: Report) -> None:
            reported = await self._send(task.spec.id, replace(report, attempt=attempt), actor)
            if reported is None or reported.verdict in (Verdict.FINISHED, Verdict.OLD_ATTEMPT):
                raise Superseded

        try:
            await runner.run(task, send)
        except Superseded:
            log.info("dispatch.superseded", taskId=task.spec.id, attempt=attempt)
        except Exception as error:
            log.exception("dispatch.attempt_failed", taskId=task.spec.id, attempt=attempt)
            reason = TaskError(
                "PROVIDER_ERROR", f"{task.spec.provider} failed: {type(error).__name__}", None, True
            )
            await self._send(task.spec.id, Report(status=FAILED, error=reason, attempt=attempt), actor)

    async def _send(self, id: str, report: Report, actor: str) -> Reported | None:
        """Store a report, however long the database is away: work that is done must not be lost to an outage."""
        while True:
            try:
                return await self._tasks.report_own(id, report, actor=actor)
            except Unavailable:
                await asyncio.sleep(SEND_RETRY)

    async def _renew(self) -> None:
        """Keep the leases of the work under way; stop work whose lease was lost to another node."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            held = list(self._running)
            if not held:
                continue
            try:
                kept = await self._reader.renew(held, self._node, until=self._clock() + self._lease_ms)
            except Exception:
                log.warning("dispatch.renew_failed", tasks=len(held), exc_info=True)
                continue
            for id in held:
                if id not in kept and (work := self._running.get(id)) is not None:
                    log.warning("dispatch.lease_lost", taskId=id)
                    work.cancel()
