"""The reading side of tasks: by id, lists, timelines, leases and what is removed, on every database."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import pytest

from taskwire.core.events import Urgency
from taskwire.core.filters import TaskFilter
from taskwire.core.tasks import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PROCESSING,
    QUEUED,
    Report,
    Task,
    TaskStatus,
    next_attempt,
)
from taskwire.store.entities import Command, Guard
from taskwire.store.tasks import TaskTable, task_event
from tests.support.services import Postgres
from tests.support.store import Backend, Store, open_store
from tests.support.tasks import NOW, make_task
from tests.support.timing import eventually_async

pytestmark = pytest.mark.anyio

on_postgres = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    async with open_store(backend.url) as opened:
        yield opened


def ids(tasks: Sequence[Task]) -> list[str]:
    return [task.spec.id for task in tasks]


async def listed(store: Store, before: str | None = None, limit: int = 99, **where: Any) -> str:
    """The ids of a page, in its order, as one word."""
    return "".join(ids(await store.reader.page(TaskFilter(**where), before=before, limit=limit)))


async def test_tasks_by_id(store: Store) -> None:
    await store.made("a", "b", "c")
    found = await store.reader.get_many(["c", "a", "nothing", "a"])
    assert {id: task.spec.id for id, task in found.items()} == {"a": "a", "c": "c"}
    assert await store.reader.get_many([]) == {}
    assert await store.reader.get_many(["'; DROP TABLE tasks; --", 'a"', "a\\"]) == {}


async def make_variety(store: Store) -> None:
    """Tasks a to f, of two owners, two teams, two providers, in all states."""
    specs: dict[str, dict[str, Any]] = {
        "a": {"owner_id": "ann", "title": "Lighthouse at dusk", "prompt": "x"},
        "b": {"owner_id": "ann", "team_id": "blue", "provider": "render", "prompt": "the LIGHT house"},
        "c": {"owner_id": "bob", "team_id": "blue", "title": "100% cotton", "prompt": "x"},
        "d": {"owner_id": "bob", "title": "100 cotton", "prompt": "under_score"},
        "e": {"owner_id": "bob", "team_id": "red", "provider": "render", "prompt": "underXscore"},
        "f": {"owner_id": "cat", "title": "back\\slash", "prompt": "x"},
    }
    for number, (id, spec) in enumerate(specs.items()):
        await store.writer.submit(store.create(id, created_at=NOW + number * 1000, **spec))
    for id, status in {"b": PROCESSING, "c": COMPLETED, "d": FAILED, "e": CANCELLED, "f": PROCESSING}.items():
        store.now += 10_000
        await store.writer.submit(store.report(id, Report(status=status)))


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "fedcba"),
    ({"owner_ids": ["ann"]}, "ba"),
    ({"owner_ids": ["ann", "cat"]}, "fba"),
    ({"team_ids": ["blue"]}, "cb"),
    ({"owner_ids": ["ann"], "team_ids": ["blue", "red"]}, "ecba"),
    ({"owner_ids": [], "team_ids": ["red"]}, "e"),
    ({"owner_ids": [], "team_ids": []}, ""),
    ({"owner_ids": []}, ""),
    ({"statuses": [PROCESSING]}, "fb"),
    ({"statuses": [QUEUED, FAILED, CANCELLED]}, "eda"),
    ({"providers": ["render"]}, "eb"),
    ({"providers": ["render", "external"]}, "fedcba"),
    ({"providers": ["nobody"]}, ""),
    ({"text": "light"}, "ba"),
    ({"text": "100%"}, "c"),
    ({"text": "under_s"}, "d"),
    ({"text": "\\"}, "f"),
    ({"text": "'"}, ""),
    ({"created_from": NOW + 2000}, "fedc"),
    ({"created_to": NOW + 2000}, "ba"),
    ({"created_from": NOW + 1000, "created_to": NOW + 3000}, "cb"),
    ({"updated_from": NOW + 30_000}, "fed"),
    (
        {"owner_ids": ["bob"], "statuses": [COMPLETED, FAILED], "text": "cotton", "created_from": NOW},
        "dc",
    ),
]


async def test_a_list_is_narrowed_by_each_filter(store: Store) -> None:
    await make_variety(store)
    assert [(where, await listed(store, **where)) for where, _ in FILTERS] == FILTERS


async def test_pages_follow_each_other_without_gap_or_repeat(store: Store) -> None:
    await store.made(*(f"t{number:03}" for number in range(57)))
    seen: list[str] = []
    before: str | None = None
    while page := await store.reader.page(TaskFilter(), before=before, limit=10):
        seen += ids(page)
        before = seen[-1]
        await store.made(f"t9{len(seen):02}")  # what comes meanwhile is newer, and moves nothing
    assert seen == [f"t{number:03}" for number in reversed(range(57))]


async def test_counts_by_status_and_what_waits(store: Store) -> None:
    await make_variety(store)
    assert await store.reader.counts() == {
        "QUEUED": 1, "PROCESSING": 2, "COMPLETED": 1, "FAILED": 1, "CANCELLED": 1,
    }  # fmt: skip
    assert await store.reader.waiting("external") == 1
    assert await store.reader.waiting("render") == 0


async def test_a_timeline_is_read_in_pages(store: Store) -> None:
    await store.made("a", "b")
    for report in (Report(progress=1), Report(progress=2), Report(status=FAILED)):
        for id in "ab":
            await store.writer.submit(store.report(id, report))
    first = await store.reader.timeline("a", limit=2)
    assert [(entry.type, entry.revision) for entry in first] == [("created", 1), ("started", 2)]
    (rest,) = await store.reader.timeline("a", limit=9, after=first[-1].seq)
    assert (rest.type, rest.revision, rest.data["error"]["code"]) == ("failed", 4, "TASK_FAILED")
    assert await store.reader.timeline("nothing", limit=9) == []


@pytest.mark.parametrize(
    ("old", "new", "urgency"),
    [
        (None, {}, Urgency.STATE),
        ({}, {"progress": 5}, Urgency.PROGRESS),
        ({}, {"message": "m"}, Urgency.PROGRESS),
        ({}, {"status": PROCESSING}, Urgency.STATE),
        ({"status": PROCESSING}, {"status": PROCESSING, "progress": 9}, Urgency.PROGRESS),
        ({"status": PROCESSING}, {"status": COMPLETED}, Urgency.FINAL),
        ({}, {"status": CANCELLED}, Urgency.FINAL),
        ({"status": FAILED}, {"attempt": 2}, Urgency.STATE),
        ({"status": PROCESSING}, {"attempt": 2}, Urgency.STATE),
        ({}, {"attempt": 2}, Urgency.STATE),
        (None, {"status": COMPLETED}, Urgency.FINAL),
    ],
)
def test_how_much_a_change_matters(old: dict[str, Any] | None, new: dict[str, Any], urgency: Urgency) -> None:
    before = None if old is None else make_task(**old)
    assert TaskTable("sqlite").urgency(before, make_task(**new)) is urgency


@pytest.mark.parametrize(
    ("status", "urgency"), [(QUEUED, Urgency.STATE), (PROCESSING, Urgency.STATE), (FAILED, Urgency.FINAL)]
)
def test_a_snapshot_is_never_mere_progress(status: TaskStatus, urgency: Urgency) -> None:
    event = task_event(make_task(status=status, spec={"team_id": "blue"}, revision=4))
    assert (event.topic, event.revision, event.urgency) == ("task:video_1", 4, urgency)
    assert event.rooms == ("user:user_owner", "team:blue")


# Leases

NODE: dict[str, Any] = {"node": "node-1", "now": NOW, "until": NOW + 15_000, "limit": 10}


async def claim(store: Store, *, providers: Sequence[str] = ("render",), **changes: Any) -> list[str]:
    return ids(await store.reader.claim(providers, **{**NODE, **changes}))


async def make_work(store: Store, *names: str) -> None:
    await store.writer.submit_many([store.create(name, provider="render") for name in names])


async def test_the_oldest_work_is_claimed_first_and_once(store: Store) -> None:
    await make_work(store, "c", "a", "d", "b")
    assert await claim(store, limit=3) == ["a", "b", "c"]
    assert await claim(store) == ["d"]
    assert await claim(store) == []
    assert await claim(store, node="node-2") == []


async def test_only_unfinished_work_of_the_named_providers_is_claimed(store: Store) -> None:
    await make_work(store, "done", "failed", "going", "new")
    await store.made("foreign")
    for id, status in {"done": COMPLETED, "failed": FAILED, "going": PROCESSING}.items():
        await store.writer.submit(store.report(id, Report(status=status)))
    assert await claim(store) == ["going", "new"]
    assert await claim(store, providers=["external"]) == ["foreign"]
    assert await claim(store, providers=[]) == []


async def test_a_claim_gives_the_tasks_as_they_are_stored(store: Store) -> None:
    await make_work(store, "a")
    await store.writer.submit(store.report("a", Report(progress=5)))
    (task,) = await store.reader.claim(["render"], **NODE)
    assert task == await store.get("a")


async def test_a_lease_that_has_run_out_is_free(store: Store) -> None:
    await make_work(store, "a")
    await claim(store)
    assert await claim(store, node="node-2", now=NOW + 15_000) == []
    assert await claim(store, node="node-2", now=NOW + 15_001) == ["a"]


async def test_a_node_takes_back_what_it_held_before_its_restart(store: Store) -> None:
    await make_work(store, "a", "b")
    assert await claim(store, limit=1) == ["a"]
    assert await claim(store, node="node-2", limit=1) == ["b"]
    assert await claim(store, take_own=True) == ["a"]


async def test_renewing_keeps_what_is_ours_and_tells_what_is_not(store: Store) -> None:
    await make_work(store, "a", "b")
    await claim(store, limit=1)
    await claim(store, node="node-2")
    assert await store.reader.renew(["a", "b", "gone"], "node-1", until=NOW + 60_000) == {"a"}
    assert await claim(store, node="node-3", now=NOW + 30_000) == ["b"]
    assert await store.reader.renew([], "node-1", until=NOW) == set()


async def test_released_work_is_free_at_once_but_only_for_its_holder_to_release(store: Store) -> None:
    await make_work(store, "a", "b")
    await claim(store)
    await store.reader.release(["a", "b"], "node-2")
    assert await claim(store, node="node-2") == []
    await store.reader.release(["b"], "node-1")
    assert await claim(store, node="node-2") == ["b"]


async def test_two_nodes_claiming_at_once_never_get_the_same(backend: Backend) -> None:
    async with open_store(backend.url) as one, open_store(backend.url) as two:
        await make_work(one, *(f"t{number:03}" for number in range(120)))

        async def work(store: Store, node: str) -> list[str]:
            mine: list[str] = []
            while found := await claim(store, node=node, limit=7):
                mine += found
            return mine

        first, second = await asyncio.gather(work(one, "node-1"), work(two, "node-2"))
        assert sorted(first + second) == [f"t{number:03}" for number in range(120)]


@on_postgres
async def test_leases_and_reports_on_the_same_tasks_do_not_wait_for_each_other_in_a_ring(
    backend: Backend,
) -> None:
    """Reports lock their tasks in the order of their ids, and so must whoever changes leases."""
    names = [f"t{number:03}" for number in range(300)]
    async with open_store(backend.url) as one, open_store(backend.url) as two:
        mixed = names[:]
        Random(1).shuffle(mixed)  # so that the order of the rows is not the order of the ids
        await make_work(one, *mixed)
        await claim(one, limit=300)
        done = asyncio.Event()

        async def report() -> None:
            for turn in range(15):
                await one.writer.submit_many([one.report(name, Report(message=f"{turn}")) for name in names])
            done.set()

        async def renew() -> None:
            while not done.is_set():
                assert len(await two.reader.renew(names, "node-1", until=NOW + 15_000)) == 300

        async def release() -> None:
            while not done.is_set():
                await two.reader.release(names[:150], "node-1")
                await two.reader.claim(["render"], "node-1", now=NOW, until=NOW + 15_000, limit=300)

        await asyncio.gather(report(), renew(), renew())
        done.clear()
        await asyncio.gather(report(), release())
        assert one.writer.stats.failures == 0


# Removing


async def finish(store: Store, id: str, at: int, status: TaskStatus = COMPLETED) -> None:
    store.now = at
    await store.writer.submit(store.report(id, Report(status=status)))


async def test_what_finished_long_ago_is_removed_with_its_events(store: Store) -> None:
    await store.made("old", "older", "new", "going")
    await finish(store, "old", NOW + 2_000)
    await finish(store, "older", NOW + 1_000, FAILED)
    await finish(store, "new", NOW + 3_000)
    await store.writer.submit(store.report("going", Report(progress=5)))
    assert await store.reader.expire(NOW + 3_000, limit=1) == ["older"]
    assert await store.reader.expire(NOW + 3_000, limit=9) == ["old"]
    assert await store.reader.expire(NOW + 3_000, limit=9) == []
    assert set(await store.reader.get_many(["old", "older", "new", "going"])) == {"new", "going"}
    assert await store.reader.timeline("old", limit=9) == []
    assert len(await store.reader.timeline("new", limit=9)) == 2


@on_postgres
async def test_a_task_that_is_being_retried_is_not_removed(
    backend: Backend, store: Store, postgres: Postgres
) -> None:
    await store.made("a")
    await finish(store, "a", NOW, FAILED)
    name = backend.url.rpartition("/")[2]
    retrying = asyncio.create_task(
        asyncio.to_thread(
            postgres.sql,
            "BEGIN; UPDATE tasks SET finished_at = NULL, status = 'QUEUED'; SELECT pg_sleep(0.5); COMMIT",
            name,
        )
    )
    asleep = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = '{name}'"
    await eventually_async(lambda: postgres.sql(asleep, name) == "1")
    await store.reader.expire(NOW + 1_000, limit=9)
    await retrying
    assert (await store.get("a")).state.status is QUEUED


async def test_a_task_retried_before_its_time_is_over_stays(store: Store) -> None:
    await store.made("a")
    await finish(store, "a", NOW, FAILED)

    def retry(task: Task | None, now: int) -> tuple[Task, Task]:
        assert task is not None
        new = Task(task.spec, next_attempt(task.state, now))
        return new, new

    await store.writer.submit(Command(store.table, "a", retry))
    assert await store.reader.expire(NOW + 1_000_000, limit=9) == []


async def test_old_idempotency_keys_are_forgotten(store: Store) -> None:
    await store.writer.submit(store.create("a", Guard("ann", "old", "f")))
    store.now += 1_000
    await store.writer.submit(store.create("b", Guard("ann", "new", "f")))
    await store.reader.expire_idempotency_keys(NOW + 500)
    answers = await store.writer.submit_many(
        [store.create("c", Guard("ann", "old", "f")), store.create("d", Guard("ann", "new", "f"))]
    )
    assert ids(answers) == ["c", "b"]


async def test_a_report_on_a_removed_task_finds_none_in_spite_of_the_cache(store: Store) -> None:
    await store.made("a")
    await finish(store, "a", NOW)
    await store.writer.submit(store.report("a", Report(progress=5)))  # late, and read into the cache
    await store.reader.expire(NOW + 1, limit=9)

    def look(task: Task | None, now: int) -> tuple[Task | None, bool]:
        return None, task is None

    assert await store.writer.submit(Command(store.table, "a", look))
