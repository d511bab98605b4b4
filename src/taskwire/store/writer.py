"""The group-commit writer: everything that arrived during the last commit goes into the next one.

Guarantees, for whoever submits commands:

- A command's answer comes after its change is committed, and every event is published after that, in revision order.
- Commands on one entity are applied in the order of submission. Progress that is superseded within a commit is merged:
  only the last state is written and published. Every other change is written to the event log and published by itself.
- One bad command never takes others down: if a commit fails for what is in it, its halves are committed on their own.
- While the database is away a commit is tried again until ``timeout``; then its commands are answered ``Unavailable``.
  A connection may break after the commit and before its answer: what the next try finds changed is published then.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from sqlalchemy.exc import IntegrityError

from taskwire.core.errors import TaskwireError, Unavailable
from taskwire.core.events import Event, Urgency
from taskwire.store.commit import Batch, run_batch
from taskwire.store.database import Database, is_transient
from taskwire.store.entities import Command

log = structlog.get_logger(__name__)

Publish = Callable[[Sequence[Event]], None]

_OPEN: Final = object()
"""In place of an answer that is not there yet."""


class Ticket:
    """Commands submitted together, and their answers in the same order."""

    __slots__ = ("answers", "commands", "future", "open")

    def __init__(self, commands: Sequence[Command], future: "asyncio.Future[list[Any]]") -> None:
        self.commands = commands
        self.answers: list[Any] = [_OPEN] * len(commands)
        self.open = len(commands)
        self.future = future

    def answer(self, index: int, value: Any) -> None:
        """Give one answer; the first holds."""
        if self.answers[index] is not _OPEN:
            return
        self.answers[index] = value
        self.open -= 1
        if self.open == 0 and not self.future.done():
            self.future.set_result(self.answers)


Placed = tuple[Command, Ticket, int]


@dataclass(slots=True)
class WriterStats:
    """Counters for the metrics endpoint. Times in seconds."""

    commits: int = 0
    commands: int = 0
    changes: int = 0
    failures: int = 0
    # Called after each commit with (changes, seconds of the commit, seconds from it to the last write of its events).
    observers: list[Callable[[int, float, float], None]] = field(default_factory=list)


class Writer:
    """Takes commands from anywhere in the process and commits them in groups, one commit at a time."""

    def __init__(
        self,
        database: Database,
        publish: Publish,
        *,
        clock: Callable[[], int],
        max_batch: int = 4000,
        max_queue: int = 50_000,
        timeout: float = 10.0,
        cache_size: int = 20_000,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._publish = publish
        self._clock = clock
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._timeout = timeout
        self._cache: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._cache_size = cache_size
        self._lost = lost  # called when what was committed may not have been published
        self._queue: deque[Placed] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.stats = WriterStats()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="writer")

    async def close(self) -> None:
        """Commit what was submitted, then stop. Later submissions are refused."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    @property
    def backlog(self) -> int:
        """Commands waiting for a commit."""
        return len(self._queue)

    async def submit(self, command: Command) -> Any:
        """Commit one command and give its answer; raises what the command answered if that is an exception."""
        (answer,) = await self.submit_many((command,))
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def submit_many(self, commands: Sequence[Command]) -> list[Any]:
        """Commit commands, in one commit if they fit; the answers in their order, exceptions among them as values.

        Raises Unavailable when the queue is full, SERVER_SHUTDOWN when the writer is closing: then nothing was taken.
        """
        if not commands:
            return []
        if self._closing:
            raise TaskwireError("SERVER_SHUTDOWN")
        if len(self._queue) + len(commands) > self._max_queue:
            raise Unavailable("Too many changes are waiting to be stored.")
        ticket = Ticket(commands, asyncio.get_running_loop().create_future())
        self._queue.extend((command, ticket, index) for index, command in enumerate(commands))
        self._wake.set()
        return await ticket.future

    async def _run(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            count = min(len(self._queue), self._max_batch)
            placed = [self._queue.popleft() for _ in range(count)]
            try:
                await self._commit(placed)
            except Exception:  # the writer itself must outlive any bug: answer, log, go on
                log.exception("writer.failed", commands=count)
                self._refuse(placed, TaskwireError("INTERNAL_ERROR"))

    async def _commit(self, placed: list[Placed]) -> None:
        """Commit ``placed`` as one transaction; in halves if it fails for what is in it."""
        deadline = time.monotonic() + self._timeout
        delay = 0.02
        known: dict[tuple[str, str], int] | None = None  # revisions before a try whose outcome is in doubt
        collided = False
        while True:
            batch = Batch([command for command, _, _ in placed], self._cache, self._clock())
            started = time.perf_counter()
            try:
                await self._database.transact(lambda connection, batch=batch: run_batch(connection, batch))  # type: ignore[misc]
            except Exception as error:
                self.stats.failures += 1
                if is_transient(error):
                    known = self._known(placed) if known is None else known
                    self._forget(placed)
                    if time.monotonic() + delay > deadline:
                        log.exception("store.unavailable", commands=len(placed))
                        self._refuse(placed, Unavailable("The database cannot be reached right now."))
                        self._lost()  # it may have taken the commit, and broken before it could say so
                        return
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, 1.0)
                    continue
                self._forget(placed)
                if isinstance(error, IntegrityError) and not collided:
                    collided = (
                        True  # another node used the same Idempotency-Key just now; this time we see it
                    )
                    continue
                if len(placed) > 1:
                    half = len(placed) // 2
                    await self._commit(placed[:half])
                    await self._commit(placed[half:])
                    return
                log.exception("writer.command_failed", key=placed[0][0].key)
                self._refuse(placed, TaskwireError("INTERNAL_ERROR"))
                return
            self._done(placed, batch, time.perf_counter() - started, known)
            return

    def _done(
        self, placed: list[Placed], batch: Batch, seconds: float, known: dict[tuple[str, str], int] | None
    ) -> None:
        """After the commit: remember the states, publish the events, answer."""
        self._remember(batch)
        committed_at = time.monotonic()
        events = [
            line.table.event(step.entity, step.urgency, committed_at)
            for line in batch.lines.values()
            for step in line.steps
        ]
        if known is not None:
            events += [
                line.table.event(line.entity, line.table.urgency(None, line.entity), committed_at)
                for key, line in batch.lines.items()
                if not line.steps and line.entity is not None and line.entity.revision > known.get(key, 0)
            ]
        stats = self.stats
        stats.commits += 1
        stats.commands += len(placed)
        stats.changes += len(events)
        if events:
            try:
                self._publish(events)
            except Exception:  # what is committed is committed; subscribers are caught up by revision
                log.exception("writer.publish_failed", events=len(events))
                self._lost()
            published = time.monotonic() - committed_at
            for observe in stats.observers:
                try:
                    observe(len(events), seconds, published)
                except Exception:
                    log.exception("writer.observer_failed")
        for (_, ticket, index), answer in zip(placed, batch.answers, strict=True):
            ticket.answer(index, answer)

    def _remember(self, batch: Batch) -> None:
        cache = self._cache
        for key, line in batch.lines.items():
            if line.entity is None:
                continue
            if line.steps and line.steps[-1].urgency is Urgency.FINAL:
                cache.pop(key, None)  # finished work changes rarely; keep room for what runs
                continue
            cache[key] = line.entity
            cache.move_to_end(key)
        while len(cache) > self._cache_size:
            cache.popitem(last=False)

    def _known(self, placed: list[Placed]) -> dict[tuple[str, str], int]:
        """The revisions up to which everything was published, as far as they are remembered."""
        keys = {(command.table.kind, command.key) for command, _, _ in placed}
        return {key: entity.revision for key in keys if (entity := self._cache.get(key)) is not None}

    def _forget(self, placed: list[Placed]) -> None:
        for command, _, _ in placed:
            self._cache.pop((command.table.kind, command.key), None)

    @staticmethod
    def _refuse(placed: list[Placed], error: Exception) -> None:
        for _, ticket, index in placed:
            ticket.answer(index, error)
