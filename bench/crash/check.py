"""The course of a crash check: work, kill, compare, go on; and at the end everybody must have seen every end."""

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from bench.crash.ledger import Ledger, Sight, stored
from bench.crash.producer import Producer
from bench.crash.subscriber import Follower
from bench.load.http import Answer
from bench.process import ServerProcess, free_port
from bench.product import ADMIN, PRODUCER, Api, checked, environment, serve_command

T = TypeVar("T")

REPORTS_PER_KILL: Final = 8
RENDER: Final = {"size": "320x180", "seconds": 2, "fps": 12}


@dataclass(frozen=True, slots=True)
class CrashPlan:
    """How much of what. ``renders`` are local renders beside the ``tasks`` that producers report.

    Kills come at random moments, spread over the whole work by the count of acknowledged reports, not by the clock, so
    that a slow machine checks the same thing. ``pause`` is the longest time in seconds between rounds of a producer;
    ``time_limit`` in seconds is for each wait, not for the whole.
    """

    tasks: int = 200
    subscribers: int = 500
    kills: int = 10
    seed: int = 1
    renders: int = 4
    tasks_per_subscriber: int = 3
    producers: int = 8
    pause: float = 0.1
    time_limit: float = 60


@dataclass(slots=True)
class CrashOutcome:
    """What happened. The promises hold if ``violations`` is empty."""

    violations: list[str] = field(default_factory=list)
    more_violations: int = 0
    kills: int = 0
    kills_during_start: int = 0
    reports: int = 0
    retried: int = 0
    messages: int = 0
    connections: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    attempts: int = 0


class _Stuck(Exception):
    """Something that had to happen did not happen in time."""


async def check(plan: CrashPlan, pin: set[int] | None = None) -> CrashOutcome:
    """Run a server of its own through ``plan`` and report. ``pin`` holds it on some cores."""
    with tempfile.TemporaryDirectory(prefix="taskwire-crash-") as folder:
        course = _Course(plan, Path(folder), pin)
        try:
            await course.run()
        except _Stuck as stuck:
            course.ledger.violated(str(stuck))
        finally:
            await course.close()
        return course.outcome()


class _Course:
    def __init__(self, plan: CrashPlan, folder: Path, pin: set[int] | None) -> None:
        self.plan = plan
        self.ledger = Ledger()
        self._chance = random.Random(plan.seed)
        self._folder, self._pin, self._port = folder, pin, free_port()
        self._server: ServerProcess | None = None
        self._old: list[ServerProcess] = []
        self._result = CrashOutcome()
        self._gate = asyncio.Event()
        self._threshold, self._reached = 0, asyncio.Event()
        self._tasks: list[str] = []
        self._followers: list[Follower] = []
        self._producers: list[Producer] = []
        self._running: list[asyncio.Task[None]] = []
        self._admin_token = ""

    # The course

    async def run(self) -> None:
        await self._start()
        await self._prepare()
        await self._all("subscribers were subscribed", (follower.up.wait() for follower in self._followers))
        work = [asyncio.create_task(producer.work()) for producer in self._producers]
        self._running += work
        total = self.plan.tasks * (REPORTS_PER_KILL * (self.plan.kills + 1) + 1)
        self._gate.set()
        for number in range(self.plan.kills):
            self._threshold = int(total * (number + self._chance.uniform(0.3, 1)) / (self.plan.kills + 1))
            await self._until(f"{self._threshold} reports were acknowledged", self._threshold_reached)
            await asyncio.sleep(self._chance.random() * 0.1)
            await self._crash()
        await self._all("producers had all their reports acknowledged", work)
        truth = await self._ended()
        await self._all(
            "subscribers had seen every end", (follower.settled.wait() for follower in self._followers)
        )
        await self._all(
            "subscribers had come back", (follower.ask_all_again() for follower in self._followers)
        )
        await self._all(
            "subscribers had an answer to a ping", (follower.quiet() for follower in self._followers)
        )
        self._compare("at the end", truth, self.ledger.newest, self.ledger.acknowledged)
        for sight in truth.values():
            self._result.ends[sight.status] = self._result.ends.get(sight.status, 0) + 1
            self._result.attempts += sight.attempt

    async def _prepare(self) -> None:
        plan = self.plan
        admin = await Api.connect(self._port, ADMIN)
        await admin.add_user(PRODUCER)
        self._admin_token = admin.token
        producer = await Api.connect(self._port, PRODUCER)
        reported = await producer.add_tasks(plan.tasks)
        self._tasks = reported + await producer.add_tasks(plan.renders, "render", RENDER)
        for number in range(plan.subscribers):
            tasks = self._chance.sample(self._tasks, min(plan.tasks_per_subscriber, len(self._tasks)))
            keen = number % 2 == 0
            follower = Follower(
                f"subscriber {number}", self._port, admin.token, tasks, keen, self.ledger, self._chance
            )
            self._followers.append(follower)
            self._running.append(asyncio.create_task(follower.live()))
        steps = REPORTS_PER_KILL * (plan.kills + 1)
        for number in range(min(plan.producers, plan.tasks)):
            share = reported[number :: plan.producers]
            own_chance = random.Random(self._chance.random())
            self._producers.append(
                Producer(
                    self._port, producer.token, share, steps, plan.pause, own_chance, self.ledger, self._gate
                )
            )
            self._producers[-1].on_acknowledged = self._on_acknowledged
        admin.close()
        producer.close()

    async def _crash(self) -> None:
        """Kill the server, wait until nothing of it is left unread, start it, and compare before work goes on."""
        assert self._server is not None
        self._gate.clear()
        self._server.kill()
        self._result.kills += 1
        await self._all(
            "subscribers noticed the crash", (follower.down.wait() for follower in self._followers)
        )
        if self._chance.random() < 0.25:
            await self._start(wait=False)
            await asyncio.sleep(self._chance.random())
            self._server.kill()
            self._result.kills_during_start += 1
            await self._all("subscribers noticed it", (follower.down.wait() for follower in self._followers))
        seen, acknowledged = dict(self.ledger.newest), dict(self.ledger.acknowledged)
        await self._start()
        when = f"after kill {self._result.kills}"
        self._compare(when, await self._stored(), seen, acknowledged)
        self._gate.set()

    async def _start(self, wait: bool = True) -> None:
        if self._server is not None:
            self._old.append(self._server)
        command, env = serve_command(self._port, self._folder / "data"), environment()
        self._server = ServerProcess(command, env, self._folder / "server.log", self._pin, self._folder)
        if wait:
            await self._server.ready(self._port, "/readyz", self.plan.time_limit)

    # Looking

    async def _stored(self) -> dict[str, Sight]:
        api = await Api.connect(self._port)
        api.token = self._admin_token
        answers: list[asyncio.Future[Answer]] = [
            api.client.send(api.request("GET", f"/tasks/{task}")) for task in self._tasks
        ]
        truth = {
            task: stored(checked(await answer)) for task, answer in zip(self._tasks, answers, strict=True)
        }
        api.close()
        return truth

    async def _ended(self) -> dict[str, Sight]:
        """The stored state of all tasks once all have ended."""

        async def look() -> dict[str, Sight]:
            while True:
                truth = await self._stored()
                if all(sight.final for sight in truth.values()):
                    return truth
                await asyncio.sleep(0.2)

        return await self._until("every task had ended", look)

    def _compare(
        self, when: str, truth: dict[str, Sight], seen: dict[str, Sight], acknowledged: dict[str, int]
    ) -> None:
        for task, sight in truth.items():
            self.ledger.compare(when, task, sight, seen.get(task), acknowledged.get(task, 0))

    # Waiting

    def _on_acknowledged(self, count: int) -> None:
        self._result.reports += count
        if self._result.reports >= self._threshold:
            self._reached.set()

    async def _threshold_reached(self) -> None:
        self._reached.clear()
        if self._result.reports < self._threshold:
            await self._reached.wait()

    async def _until(self, what: str, happens: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self.plan.time_limit):
                return await happens()
        except TimeoutError:
            raise _Stuck(f"{self.plan.time_limit} s were not enough until {what}") from None

    async def _all(self, what: str, waits: Iterable[Awaitable[object]]) -> None:
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        if not tasks:
            return
        done, late = await asyncio.wait(tasks, timeout=self.plan.time_limit)
        for task in late:
            task.cancel()
        for task in done:
            task.result()
        if late:
            missing = sum(len(follower.missing()) for follower in self._followers)
            raise _Stuck(f"{len(late)} of {len(tasks)} not yet: {what}; {missing} ends had not been seen")

    # The end

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for follower in self._followers:
            follower.cut()
        for server in (*self._old, self._server):
            if server is not None:
                server.stop()

    def outcome(self) -> CrashOutcome:
        result = self._result
        result.violations, result.more_violations = self.ledger.violations, self.ledger.more_violations
        result.messages = self.ledger.messages
        result.retried = sum(producer.retried for producer in self._producers)
        result.connections = sum(follower.connections for follower in self._followers)
        return result
