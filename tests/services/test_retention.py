"""What is past its time is removed: tasks with their files, and old Idempotency-Keys."""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from taskwire.core.tasks import COMPLETED, Report
from taskwire.services import retention as module
from taskwire.services.retention import Retention
from taskwire.services.tasks import TaskDraft
from tests.support.dispatch import ANN, Node, open_node
from tests.support.store import Backend
from tests.support.tasks import NOW
from tests.support.timing import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]

DAY = 86_400


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
async def node(backend: Backend) -> AsyncIterator[Node]:
    async with open_node(backend.url, started=False) as opened:
        yield opened


class Purged:
    """Stands in for the accounts, which remove what is old of theirs."""

    def __init__(self) -> None:
        self.times = 0

    async def purge(self) -> None:
        self.times += 1


def make_retention(
    node: Node, *, keep_tasks: float = DAY, interval: float = 3600
) -> tuple[Retention, Purged]:
    accounts: Any = Purged()
    retention = Retention(
        reader=node.store.reader,
        accounts=accounts,
        providers=[node.runner],
        clock=lambda: node.store.now,
        keep_tasks=keep_tasks,
        keep_keys=DAY,
        interval=interval,
    )
    return retention, accounts


async def finish(node: Node, count: int) -> list[str]:
    tasks = [await node.create() for _ in range(count)]
    for task in tasks:
        await node.tasks.report_own(task.spec.id, Report(status=COMPLETED), actor="test")
    return [task.spec.id for task in tasks]


async def test_finished_tasks_go_after_their_time_with_their_files(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    old = await finish(node, 7)
    node.store.now = NOW + DAY * 1000
    new, going = await finish(node, 1), await node.create()
    retention, accounts = make_retention(node)
    assert await retention.sweep() == 0
    node.store.now += 1
    assert await retention.sweep() == 7
    assert sorted(node.runner.forgotten) == sorted(old)
    assert set(await node.store.reader.get_many([*old, *new, going.spec.id])) == {*new, going.spec.id}
    assert accounts.times == 2


async def test_with_no_time_set_tasks_are_kept_for_ever(node: Node) -> None:
    ids = await finish(node, 2)
    node.store.now = NOW + DAY * 1000 * 10_000
    retention, _ = make_retention(node, keep_tasks=0)
    assert await retention.sweep() == 0
    assert len(await node.store.reader.get_many(ids)) == 2


async def test_old_idempotency_keys_go_after_their_time(node: Node) -> None:
    draft = TaskDraft("p", "fake")
    first, _ = await node.tasks.create(ANN, draft, idempotency_key="k")
    retention, _ = make_retention(node, keep_tasks=0)
    node.store.now = NOW + DAY * 1000
    await retention.sweep()
    assert (await node.tasks.create(ANN, draft, idempotency_key="k")) == (first, False)
    node.store.now += 1
    await retention.sweep()
    _, new = await node.tasks.create(ANN, draft, idempotency_key="k")
    assert new


async def test_files_that_cannot_be_removed_do_not_keep_the_others(
    node: Node, monkeypatch: pytest.MonkeyPatch, logged: list[MutableMapping[str, Any]]
) -> None:
    ids = await finish(node, 3)
    forget = node.runner.forget

    async def fail_once(task_id: str) -> None:
        if task_id == ids[1]:
            raise PermissionError("not yours")
        await forget(task_id)

    monkeypatch.setattr(node.runner, "forget", fail_once)
    node.store.now = NOW + DAY * 1000 + 1
    retention, _ = make_retention(node)
    assert await retention.sweep() == 3
    assert sorted(node.runner.forgotten) == sorted([ids[0], ids[2]])
    assert [(entry["event"], entry["taskId"]) for entry in logged if entry["log_level"] != "info"] == [
        ("retention.files_left", ids[1])
    ]


async def test_it_looks_again_and_again_whatever_goes_wrong(
    node: Node, monkeypatch: pytest.MonkeyPatch, logged: list[MutableMapping[str, Any]]
) -> None:
    retention, accounts = make_retention(node, interval=0.001)
    expire, calls = node.store.reader.expire_idempotency_keys, 0

    async def fail_first(before: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("away")
        await expire(before)

    monkeypatch.setattr(node.store.reader, "expire_idempotency_keys", fail_first)
    retention.start()
    await eventually_async(lambda: accounts.times >= 2)
    await retention.close()
    assert [entry["event"] for entry in logged] == ["retention.failed"]
    seen = accounts.times
    await retention.close()
    assert accounts.times == seen
