"""A producer that reports its tasks to the end and sends every report until it is acknowledged."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from bench.crash.ledger import Ledger
from bench.load.http import HttpClient, request_bytes
from bench.product import HOST

ENDS: Final = ("COMPLETED", "COMPLETED", "FAILED", "CANCELLED")
RETRY_PAUSE: Final = 0.05

Report = dict[str, Any]


def script(chance: random.Random, steps: int) -> list[Report]:
    """The reports of one task: growing progress and one of the ends."""
    marks = sorted(round(chance.uniform(0, 99), 2) for _ in range(steps))
    reports: list[Report] = [
        {"status": "PROCESSING", "progress": progress, "currentStep": number, "totalSteps": steps}
        for number, progress in enumerate(marks, 1)
    ]
    end = chance.choice(ENDS)
    if end == "COMPLETED":
        result = {"videoUrl": "https://media.example/v.mp4", "duration": 4, "resolution": "640x360"}
        return [*reports, {"status": end, "result": result}]
    if end == "FAILED":
        return [*reports, {"status": end, "error": {"code": "MODEL_ERROR", "message": "the model gave up"}}]
    return [*reports, {"status": end}]


class Producer:
    """Reports ``tasks`` side by side, one report of each per round: in one batch, or one request each.

    ``gate`` is closed while the server is down or being compared. ``on_acknowledged`` hears of every report done.
    """

    def __init__(
        self,
        port: int,
        token: str,
        tasks: Sequence[str],
        steps: int,
        pause: float,
        chance: random.Random,
        ledger: Ledger,
        gate: asyncio.Event,
    ) -> None:
        self.retried = 0
        self.on_acknowledged: Callable[[int], None] = lambda _count: None
        self._port, self._token, self._tasks = port, token, tasks
        self._pause, self._chance, self._ledger, self._gate = pause, chance, ledger, gate
        self._scripts = {task: script(chance, steps) for task in tasks}
        self._rounds = steps + 1
        self._batches = chance.random() < 0.5
        self._client: HttpClient | None = None

    async def work(self) -> None:
        """Go through all rounds; returns when every end is acknowledged."""
        for number in range(self._rounds):
            reports = [{"taskId": task, **self._scripts[task][number]} for task in self._tasks]
            # Producers are not tidy: some say a thing twice, some come with an old report after a new one.
            if number and self._chance.random() < 0.2:
                task = self._chance.choice(self._tasks)
                reports.append({"taskId": task, **self._scripts[task][self._chance.randrange(number)]})
            if self._batches:
                await self._deliver_batch(reports)
            else:
                await asyncio.gather(*(self._deliver_one(report) for report in reports))
            await asyncio.sleep(self._chance.random() * self._pause)
        if self._client is not None:
            self._client.close()

    async def _deliver_batch(self, reports: Sequence[Report]) -> None:
        outcomes = (await self._post("/api/v1/reports", {"reports": reports}))["outcomes"]
        if len(outcomes) != len(reports):
            self._ledger.violated(f"{len(reports)} reports got {len(outcomes)} outcomes")
        for report, outcome in zip(reports, outcomes, strict=False):
            self._acknowledged(report["taskId"], outcome)

    async def _deliver_one(self, report: Report) -> None:
        body = {name: value for name, value in report.items() if name != "taskId"}
        outcome = await self._post(f"/api/v1/tasks/{report['taskId']}/reports", body)
        self._acknowledged(report["taskId"], outcome)

    def _acknowledged(self, task: str, outcome: dict[str, Any]) -> None:
        if isinstance(outcome.get("revision"), int):
            self._ledger.acknowledge(task, outcome["revision"])
        else:
            self._ledger.violated(f"a report of {task} was answered with {outcome}")
        self.on_acknowledged(1)

    async def _post(self, path: str, body: Any) -> Any:
        """Send until there is an answer; a request cut in the middle may or may not have counted, and is sent again."""
        request = request_bytes("POST", path, orjson.dumps(body), {"Authorization": f"Bearer {self._token}"})
        while True:
            await self._gate.wait()
            try:
                if self._client is None:
                    self._client = await HttpClient.connect(HOST, self._port)
                client = self._client
                answer = await client.send(request)
            except OSError:
                self._client = None
                self.retried += 1
                await asyncio.sleep(RETRY_PAUSE)
                continue
            if answer.status == 503:
                await asyncio.sleep(RETRY_PAUSE)
                continue
            if answer.status >= 400:
                self._ledger.violated(f"POST {path}: {answer.status} {answer.body[:200]!r}")
                return {"outcomes": []}
            return answer.json()
