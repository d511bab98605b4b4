"""Work done in this process: taken by lease, stopped when cancelled, taken up again after a crash or a restart."""

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from taskwire.core.errors import TaskwireError, Unavailable
from taskwire.core.tasks import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, Report, Task, TaskStatus
from taskwire.services.ports import SendReport
from taskwire.services.tasks import AFTER_CRASH, AFTER_RESTART, Reported
from tests.support.dispatch import ANN, FakeRunner, Node, do_nothing, open_node
from tests.support.store import Backend
from tests.support.timing import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


async def do_all(task: Task, report: SendReport) -> None:
    for progress in (10, 50, 90):
        await report(Report(status=PROCESSING, progress=progress))
    await report(Report(status=COMPLETED, message="done"))


async def begin(task: Task, report: SendReport) -> None:
    """Work that reports its beginning and never ends by itself."""
    await report(Report(status=PROCESSING, progress=10))
    await asyncio.Event().wait()


async def is_in(node: Node, task: Task, status: TaskStatus, attempt: int = 1) -> bool:
    state = (await node.store.get(task.spec.id)).state
    return (state.status, state.attempt) == (status, attempt)


async def reaches(node: Node, task: Task, status: TaskStatus, attempt: int = 1) -> None:
    await eventually_async(lambda: is_in(node, task, status, attempt))


async def holder(backend: Backend, task: Task) -> str:
    sql = f"SELECT coalesce(lease_owner, '') FROM tasks WHERE id = '{task.spec.id}'"
    return await asyncio.to_thread(backend.ask, sql)


async def test_new_work_is_taken_at_once_and_seen_to_its_end(backend: Backend) -> None:
    async with open_node(backend.url, do_all) as node:
        assert node.runner.started == 1
        task = await node.create()
        await reaches(node, task, COMPLETED)
        assert node.runner.runs == [(task.spec.id, 1)]
        await eventually_async(lambda: node.dispatcher.running == 0)
        assert await _is_free(backend, task)
        entries = await node.store.reader.timeline(task.spec.id, limit=9)
        assert [(entry.type, entry.actor) for entry in entries] == [
            ("created", "user:ann"), ("started", "provider:fake"), ("completed", "provider:fake"),
        ]  # fmt: skip


async def _is_free(backend: Backend, task: Task) -> bool:
    await eventually_async(lambda: _holder_is(backend, task, ""))
    return True


async def _holder_is(backend: Backend, task: Task, node: str) -> bool:
    return await holder(backend, task) == node


async def test_what_waited_before_the_start_is_taken_too(backend: Backend) -> None:
    async with open_node(backend.url, started=False) as before:
        tasks = [await before.create() for _ in range(3)]
    async with open_node(backend.url, do_all, capacity=1) as node:
        for task in tasks:
            await reaches(node, task, COMPLETED)


async def test_no_more_runs_side_by_side_than_there_is_room_for(backend: Backend) -> None:
    async def slowly(task: Task, report: SendReport) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        await do_all(task, report)

    async with open_node(backend.url, slowly, capacity=3) as node:
        tasks = [await node.create() for _ in range(12)]
        for task in tasks:
            await reaches(node, task, COMPLETED)
        assert node.runner.busiest == 3
        assert sorted(node.runner.runs) == sorted((task.spec.id, 1) for task in tasks)


async def test_others_work_is_left_alone(backend: Backend) -> None:
    async with open_node(backend.url, do_all) as node:
        foreign = await node.create(provider="external")
        mine = await node.create()
        await reaches(node, mine, COMPLETED)
        assert await is_in(node, foreign, QUEUED)
        await node.tasks.cancel(ANN, foreign.spec.id)


async def test_cancelling_stops_the_work_and_makes_room(backend: Backend) -> None:
    async with open_node(backend.url, begin, capacity=1) as node:
        first, second = await node.create(), await node.create()
        await reaches(node, first, PROCESSING)
        await node.tasks.cancel(ANN, first.spec.id)
        await reaches(node, second, PROCESSING)
        assert node.runner.stopped == [first.spec.id]
        assert await is_in(node, first, CANCELLED)
        assert await _is_free(backend, first)


async def test_work_cancelled_before_it_was_taken_is_not_begun(backend: Backend) -> None:
    async with open_node(backend.url, begin, capacity=1) as node:
        first, second = await node.create(), await node.create()
        await reaches(node, first, PROCESSING)
        await node.tasks.cancel(ANN, second.spec.id)
        await node.tasks.cancel(ANN, first.spec.id)
        third = await node.create()
        await reaches(node, third, PROCESSING)
        assert [id for id, _ in node.runner.runs] == [first.spec.id, third.spec.id]


async def test_what_is_retried_right_after_it_was_cancelled_is_taken_up_at_once(backend: Backend) -> None:
    async with open_node(backend.url, begin, lease=3600) as node:
        task = await node.create()
        for attempt in range(1, 6):
            await reaches(node, task, PROCESSING, attempt)
            await node.tasks.cancel(ANN, task.spec.id)
            await node.tasks.retry(ANN, task.spec.id)
        await reaches(node, task, PROCESSING, 6)


async def test_work_that_breaks_fails_the_task_without_telling_secrets(
    backend: Backend, logged: list[MutableMapping[str, Any]]
) -> None:
    async def break_down(task: Task, report: SendReport) -> None:
        await report(Report(progress=30))
        raise ValueError("the key is sk-secret")

    async with open_node(backend.url, break_down) as node:
        task = await node.create()
        await reaches(node, task, FAILED)
        error = (await node.store.get(task.spec.id)).state.error
        assert error is not None
        assert (error.code, error.message, error.retryable) == (
            "PROVIDER_ERROR",
            "fake failed: ValueError",
            True,
        )
        assert [entry["event"] for entry in logged] == ["dispatch.attempt_failed"]
        node.runner.script = do_all
        await node.tasks.retry(ANN, task.spec.id)
        await reaches(node, task, COMPLETED, 2)


async def test_a_report_that_cannot_be_stored_fails_the_task(backend: Backend) -> None:
    async def report_rubbish(task: Task, report: SendReport) -> None:
        await report(Report(status=COMPLETED, message="\ud800"))

    async with open_node(backend.url, report_rubbish) as node:
        task = await node.create()
        await reaches(node, task, FAILED)


async def test_work_whose_attempt_is_over_is_told_so_by_its_next_report(
    backend: Backend, logged: list[MutableMapping[str, Any]]
) -> None:
    """As when another node has cancelled the task, of which this one's dispatcher hears nothing."""
    go = asyncio.Event()
    told: list[type[BaseException]] = []

    async def wait_and_report(task: Task, report: SendReport) -> None:
        await report(Report(progress=10))
        await go.wait()
        try:
            await report(Report(progress=20))
        except BaseException as error:
            told.append(type(error))
            raise

    async with (
        open_node(backend.url, wait_and_report) as node,
        open_node(backend.url, started=False) as other,
    ):
        task = await node.create()
        await reaches(node, task, PROCESSING)
        await other.tasks.cancel(ANN, task.spec.id)
        go.set()
        await eventually_async(lambda: node.dispatcher.running == 0)
        assert [error.__name__ for error in told] == ["Superseded"]
        assert [entry["event"] for entry in logged] == ["dispatch.superseded"]
        assert await is_in(node, task, CANCELLED)


async def test_reports_of_a_lost_attempt_do_not_reach_the_next_one(backend: Backend) -> None:
    """Whether or not the work names its attempt."""
    go = asyncio.Event()

    async def finish_late(task: Task, report: SendReport) -> None:
        await report(Report(progress=10))
        await go.wait()
        await report(Report(status=COMPLETED))

    async with open_node(backend.url, finish_late) as node, open_node(backend.url, started=False) as other:
        task = await node.create()
        await reaches(node, task, PROCESSING)
        await other.tasks.interrupted(task.spec.id, actor="x", crashed=True, max_crashes=9)
        go.set()
        await reaches(node, task, COMPLETED, 2)
        assert node.runner.runs == [(task.spec.id, 1), (task.spec.id, 2)]


# Restarts and crashes


async def crash(backend: Backend, name: str = "node-1") -> Task:
    """A task that a node had begun when it was killed."""
    async with open_node(backend.url, started=False, name=name) as node:
        task = await node.create()
        await node.store.reader.claim(
            ["fake"], name, now=node.store.now, until=node.store.now + 30_000, limit=1
        )
        await node.tasks.report_own(task.spec.id, Report(progress=60), actor="provider:fake")
    return task


async def test_what_a_crash_cut_off_is_taken_up_by_the_same_node_at_once(backend: Backend) -> None:
    task = await crash(backend)
    async with open_node(backend.url, do_all, lease=3600) as node:
        await reaches(node, task, COMPLETED, 2)
        assert node.runner.runs == [(task.spec.id, 2)]
        entries = await node.store.reader.timeline(task.spec.id, limit=9)
        assert entries[2].type == "interrupted"
        assert entries[2].data["message"] == AFTER_CRASH


async def test_what_another_node_works_on_is_left_to_it_until_its_lease_runs_out(backend: Backend) -> None:
    task = await crash(backend, "node-2")
    async with open_node(backend.url, do_all, lease=0.15) as node:
        mine = await node.create()
        await reaches(node, mine, COMPLETED)
        assert await is_in(node, task, PROCESSING)
        node.store.now += 30_001
        await reaches(node, task, COMPLETED, 2)


async def test_work_that_crashes_its_node_again_and_again_is_given_up(backend: Backend) -> None:
    task = await crash(backend)
    for attempt in (2, 3):
        async with open_node(backend.url, started=False) as node:
            found = await node.tasks.interrupted(task.spec.id, actor="x", crashed=True, max_crashes=2)
            assert found is not None
            assert found.state.attempt == attempt
            await node.tasks.report_own(task.spec.id, Report(progress=10), actor="provider:fake")
    async with open_node(backend.url, do_all, max_attempts=3) as node:
        await reaches(node, task, FAILED, 3)
        assert node.runner.runs == []
        await eventually_async(lambda: node.dispatcher.running == 0)


async def test_closing_stops_the_work_and_hands_it_back(backend: Backend) -> None:
    async with open_node(backend.url, begin) as node:
        task = await node.create()
        await reaches(node, task, PROCESSING)
    assert node.runner.stopped == [task.spec.id]
    assert (node.runner.closed, node.dispatcher.running) == (1, 0)
    assert await holder(backend, task) == ""
    async with open_node(backend.url, do_all, name="node-2", lease=3600) as other:
        await reaches(other, task, COMPLETED, 2)
        entries = await other.store.reader.timeline(task.spec.id, limit=9)
        assert entries[2].data["message"] == AFTER_RESTART


async def test_any_number_of_restarts_does_not_fail_the_work(backend: Backend) -> None:
    async with open_node(backend.url, begin) as node:
        task = await node.create()
        await reaches(node, task, PROCESSING)
    for attempt in range(2, 7):
        async with open_node(backend.url, begin, max_attempts=2) as node:
            await reaches(node, task, PROCESSING, attempt)


async def test_nothing_goes_on_after_closing(backend: Backend) -> None:
    async with open_node(backend.url, begin) as node:
        await node.create()
        await eventually_async(lambda: node.dispatcher.running == 1)
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not {"dispatcher", "dispatcher-leases", "fake", "writer"}.intersection(left)


# Leases


async def test_leases_of_work_under_way_are_renewed(backend: Backend) -> None:
    async with open_node(backend.url, begin, lease=0.15) as node:
        task = await node.create()
        await reaches(node, task, PROCESSING)
        node.store.now += 10_000
        until = f"SELECT lease_until FROM tasks WHERE id = '{task.spec.id}'"
        await eventually_async(lambda: int(backend.ask(until)) >= node.store.now)
        assert node.runner.stopped == []


async def test_work_whose_lease_went_to_another_node_is_stopped(
    backend: Backend, logged: list[MutableMapping[str, Any]]
) -> None:
    async with open_node(backend.url, begin, lease=0.15) as node:
        task = await node.create()
        await reaches(node, task, PROCESSING)
        backend.ask("UPDATE tasks SET lease_owner = 'node-2', lease_until = 9999999999999")
        await eventually_async(lambda: node.runner.stopped == [task.spec.id])
        await eventually_async(lambda: node.dispatcher.running == 0)
        assert await holder(backend, task) == "node-2"
        assert await is_in(node, task, PROCESSING)
        assert "dispatch.lease_lost" in [entry["event"] for entry in logged]


async def test_trouble_with_leases_stops_neither_the_work_nor_the_looking(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_node(backend.url, begin, lease=0.1) as node:
        reader, failed = node.store.reader, set()

        def failing(name: str) -> None:
            method = getattr(reader, name)

            async def fail_first(*arguments: Any, **named: Any) -> Any:
                if name not in failed:
                    failed.add(name)
                    raise Unavailable
                return await method(*arguments, **named)

            monkeypatch.setattr(reader, name, fail_first)

        for name in ("claim", "renew", "release"):
            failing(name)
        task = await node.create()
        await reaches(node, task, PROCESSING)
        await eventually_async(lambda: "renew" in failed)
        await node.tasks.cancel(ANN, task.spec.id)
        await eventually_async(lambda: node.dispatcher.running == 0)
        other = await node.create()
        await reaches(node, other, PROCESSING)
        assert node.runner.stopped == [task.spec.id]


# The database away


async def test_work_goes_on_while_the_database_is_away_and_its_end_is_stored_after(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskwire.services.dispatch.SEND_RETRY", 0.001)
    async with open_node(backend.url, do_all) as node:
        report_own, tries = node.tasks.report_own, 0

        async def away(id: str, report: Report, *, actor: str) -> Reported | None:
            nonlocal tries
            if report.status is COMPLETED and tries < 20:
                tries += 1
                raise Unavailable
            return await report_own(id, report, actor=actor)

        monkeypatch.setattr(node.tasks, "report_own", away)
        task = await node.create()
        await reaches(node, task, COMPLETED)
        assert tries == 20
        assert len(node.runner.runs) == 1


async def test_an_outage_while_work_is_taken_up_again_does_not_lose_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await crash(backend)
    async with open_node(backend.url, do_all, lease=0.15, started=False) as node:
        interrupted, tries = node.tasks.interrupted, 0

        async def away(*arguments: Any, **named: Any) -> Task | None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise TaskwireError("UNAVAILABLE")
            return await interrupted(*arguments, **named)

        monkeypatch.setattr(node.tasks, "interrupted", away)
        await node.dispatcher.start()
        await reaches(node, task, COMPLETED, 2)
        assert tries == 3
        await node.dispatcher.close()


async def test_two_nodes_share_the_work_and_do_none_twice(backend: Backend) -> None:
    runner = FakeRunner(do_all, capacity=2)
    async with (
        open_node(backend.url, name="node-1", lease=0.2, runner=runner) as one,
        open_node(backend.url, name="node-2", lease=0.2, runner=runner),
    ):
        tasks = [await one.create() for _ in range(20)]
        for task in tasks:
            await reaches(one, task, COMPLETED)
        assert sorted(runner.runs) == sorted((task.spec.id, 1) for task in tasks)


async def test_work_that_never_reports_can_be_cancelled(backend: Backend) -> None:
    async with open_node(backend.url, do_nothing) as node:
        task = await node.create()
        await eventually_async(lambda: node.runner.runs)
        await node.tasks.cancel(ANN, task.spec.id)
        await eventually_async(lambda: node.runner.stopped == [task.spec.id])
        assert await is_in(node, task, CANCELLED)
