"""Does some made-up work for a few `external` tasks, and reports its progress in batches.

    pip install httpx
    TASKWIRE_TOKEN=… python producer.py [http://127.0.0.1:3000 [TASKS [STEPS]]]

The token is a JWT, or an API key with the scope `write`.
"""

import os
import sys
import time
import uuid
from typing import Any

import httpx

BATCH = 1000  # reports in one request; what a server takes is its setting `max_reports`
# Outcomes that mean: stop working on this one, somebody cancelled or retried the task.
OVER = ("finished", "old-attempt")


def send(client: httpx.Client, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """POST until the server has taken it. Repeating is safe: a report that comes twice changes nothing the second
    time, and an Idempotency-Key does the same for a creation."""
    delay = 0.1
    while True:
        wait = delay
        try:
            answer = client.post(path, json=body, headers=headers)
            if answer.status_code not in (429, 503):
                answer.raise_for_status()
                found: dict[str, Any] = answer.json()
                return found
            wait = float(answer.headers.get("Retry-After", delay))
        except (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError) as error:
            print(f"{path}: {type(error).__name__}, trying again", file=sys.stderr)
        time.sleep(wait)
        delay = min(delay * 2, 10)


def report(client: httpx.Client, reports: list[dict[str, Any]]) -> set[str]:
    """Send reports, in batches; the ids of tasks that need no more work."""
    over = set()
    for start in range(0, len(reports), BATCH):
        part = reports[start : start + BATCH]
        # One outcome for each report, in the same order.
        outcomes = send(client, "/api/v1/reports", {"reports": part})["outcomes"]
        for sent, outcome in zip(part, outcomes, strict=True):
            if "error" in outcome:
                print(f"{sent['taskId']}: {outcome['error']['message']}", file=sys.stderr)
            if "error" in outcome or outcome["outcome"] in OVER:
                over.add(sent["taskId"])
    return over


def create(client: httpx.Client, title: str) -> dict[str, Any]:
    body = {"provider": "external", "prompt": title, "title": title}
    return send(client, "/api/v1/tasks", body, **{"Idempotency-Key": str(uuid.uuid4())})


def work(base: str, token: str, count: int, steps: int) -> None:
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        tasks = {}
        for number in range(count):
            task = create(client, f"Scene {number + 1}")
            tasks[task["id"]] = {"taskId": task["id"], "attempt": task["attempt"]}
            print(task["id"], flush=True)
        for step in range(1, steps + 1):
            time.sleep(0.02)  # the work
            news = {"currentStep": step, "totalSteps": steps, "message": f"Step {step} of {steps}"}
            for id in report(client, [task | news for task in tasks.values()]):
                del tasks[id]
        result = {"videoUrl": "https://media.example/scene.mp4", "duration": 5, "resolution": "1280x720"}
        end = {"status": "COMPLETED", "result": result}
        report(client, [task | end for task in tasks.values()])


if __name__ == "__main__":
    where, tasks, steps = (sys.argv[1:] + ["http://127.0.0.1:3000", "3", "20"][len(sys.argv) - 1 :])[:3]
    work(where, os.environ["TASKWIRE_TOKEN"], int(tasks), int(steps))
