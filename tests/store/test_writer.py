"""The group-commit writer's guarantees, on every database."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from taskwire.core.errors import InvalidRequest, TaskwireError, Unavailable
from taskwire.core.events import Event, Urgency
from taskwire.core.filters import TaskFilter
from taskwire.core.tasks import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PROCESSING,
    Report,
    Task,
    TaskResult,
    next_attempt,
)
from taskwire.store.database import Database
from taskwire.store.entities import Command, Guard
from tests.support.services import Postgres
from tests.support.store import Backend, Store, open_store
from tests.support.tasks import NOW
from tests.support.timing import eventually_async, scaled

pytestmark = pytest.mark.anyio

T = TypeVar("T")
PROGRESS, STATE, FINAL = 0, 1, 2
on_postgres = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    async with open_store(backend.url) as opened:
        yield opened


def progress(value: float) -> Report:
    return Report(progress=value)


def retry(store: Store, id: str) -> Command:
    def apply(task: Task | None, now: int) -> tuple[Task, Task]:
        assert task is not None
        new = Task(task.spec, next_attempt(task.state, now))
        return new, new

    return Command(store.table, id, apply, "user:ann")


def codes(answers: Sequence[Any]) -> list[str]:
    """The answers in short: an error's code, or the revision."""
    return [each.code if isinstance(each, TaskwireError) else str(each.revision) for each in answers]


# Commit, then publish, then answer


async def test_an_event_is_published_after_its_change_can_be_read_elsewhere(backend: Backend) -> None:
    seen: list[tuple[str, str]] = []

    def look(events: Sequence[Event]) -> None:
        for event in events:
            id = event.entity.spec.id
            stored = backend.ask(f"SELECT revision FROM tasks WHERE id = '{id}'")
            logged = backend.ask(f"SELECT count(*) FROM events WHERE topic = '{event.topic}'")
            seen.append((stored, logged))

    async with open_store(backend.url, publish=look) as store:
        await store.writer.submit(store.create("a"))
        await store.writer.submit(store.report("a", progress(10)))
        await store.writer.submit(store.report("a", Report(status=COMPLETED)))
    assert seen == [("1", "1"), ("2", "2"), ("3", "3")]


async def test_an_answer_comes_after_the_event_was_published(store: Store) -> None:
    task = await store.writer.submit(store.create("a"))
    assert store.told == [("a", 1, STATE)]
    assert task == await store.get("a")
    assert store.published[0].entity is task
    assert store.published[0].committed_at > 0


async def test_superseded_progress_is_merged(store: Store) -> None:
    await store.made("a", "b")
    await store.writer.submit_many([store.report(id, Report(status=PROCESSING)) for id in "ab"])
    store.published.clear()
    answers = await store.writer.submit_many(
        [store.report(id, progress(value)) for value in range(1, 51) for id in "ab"]
    )
    assert store.told == [("a", 52, PROGRESS), ("b", 52, PROGRESS)]
    assert [task.revision for task in answers[::2]] == list(range(3, 53))
    assert (await store.get("a")).state == answers[-2].state
    assert [entry.type for entry in await store.reader.timeline("a", limit=9)] == ["created", "started"]


async def test_every_state_change_is_logged_and_published_by_itself(store: Store) -> None:
    store.now = NOW + 500
    await store.writer.submit_many(
        [
            store.create("a"),
            store.report("a", progress(10)),
            store.report("a", progress(20)),
            store.report("a", Report(status=FAILED, message="broken")),
            retry(store, "a"),
            store.report("a", progress(5)),
            store.report("a", Report(status=COMPLETED)),
        ]
    )
    assert store.told == [
        ("a", 1, STATE),  # created
        ("a", 2, STATE),  # started
        ("a", 4, FINAL),  # failed; the progress before it gave way
        ("a", 5, STATE),  # retried
        ("a", 6, STATE),  # started
        ("a", 7, FINAL),  # completed
    ]
    timeline = await store.reader.timeline("a", limit=99)
    assert [(entry.type, entry.revision, entry.attempt) for entry in timeline] == [
        ("created", 1, 1), ("started", 2, 1), ("failed", 4, 1),
        ("retried", 5, 2), ("started", 6, 2), ("completed", 7, 2),
    ]  # fmt: skip
    assert {entry.at for entry in timeline} == {NOW + 500}
    assert [entry.actor for entry in timeline] == [
        "user:ann",
        "key:k1",
        "key:k1",
        "user:ann",
        "key:k1",
        "key:k1",
    ]
    assert timeline[2].data["error"]["code"] == "TASK_FAILED"
    assert timeline[2].data["message"] == "broken"


async def test_commands_of_many_submitters_are_applied_in_the_order_of_submission(store: Store) -> None:
    await store.made("a")

    async def submit(number: int) -> int:
        task: Task = await store.writer.submit(store.report("a", Report(message=f"m{number}")))
        return task.revision

    revisions = await asyncio.gather(*(submit(number) for number in range(200)))
    assert revisions == list(range(2, 202))
    assert (await store.get("a")).state.message == "m199"
    told = [revision for _, revision, _ in store.told]
    assert told == sorted(set(told))
    assert told[-1] == 201


async def test_what_arrives_during_a_commit_goes_into_the_next_one(backend: Backend) -> None:
    async with open_store(backend.url, started=False) as store:
        waiting = [
            asyncio.ensure_future(store.writer.submit(store.create(f"t{number}"))) for number in range(300)
        ]
        await asyncio.sleep(0)
        assert store.writer.backlog == 300
        store.writer.start()
        await asyncio.gather(*waiting)
        assert store.writer.stats.commits == 1
        assert store.writer.stats.commands == store.writer.stats.changes == 300
        await store.writer.close()


async def test_a_batch_larger_than_a_commit_is_split_and_answered_as_one(backend: Backend) -> None:
    async with open_store(backend.url, max_batch=40) as store:
        answers = await store.writer.submit_many([store.create(f"t{number}") for number in range(100)])
        assert [task.spec.id for task in answers] == [f"t{number}" for number in range(100)]
        assert store.writer.stats.commits == 3


async def test_what_does_not_change_is_neither_written_nor_published(store: Store) -> None:
    await store.made("a")
    before = await store.get("a")
    assert await store.writer.submit(store.report("a", Report())) == before
    assert store.published == []
    assert await store.get("a") == before


async def test_a_task_comes_back_from_the_database_as_it_went_in(store: Store) -> None:
    await store.writer.submit(
        store.create(
            "a", team_id="blue", title="Größe „A“ 🎬", description="d\n", metadata={"k": "v"},
            options={"fps": 24, "x": [1, None, {"y": 0.5}]},
        )
    )  # fmt: skip
    reports = [
        Report(progress=12.345, current_step=3, total_steps=20, message="läuft\t'\"\\", eta=7.25),
        Report(status=FAILED, progress=33.3),
    ]
    for report in reports:
        task = await store.writer.submit(store.report("a", report))
        assert await store.get("a") == task
        (listed,) = await store.reader.page(TaskFilter(), before=None, limit=9)
        assert listed == task


async def test_narrow_progress_updates_leave_the_rest_alone(store: Store) -> None:
    """Also after the cache has been lost."""
    await store.made("a")
    first = await store.writer.submit(
        store.report(
            "a",
            Report(
                status=PROCESSING, result=TaskResult("https://cdn.example/a.mp4", extra={"codec": "h264"})
            ),
        )
    )
    store.now += 1000
    await store.writer.submit(store.report("a", progress(40)))
    stored = (await store.get("a")).state
    assert (stored.started_at, stored.result, stored.queued_at) == (NOW, first.state.result, NOW)
    store.writer._cache.clear()
    store.now += 1000
    task = await store.writer.submit(
        store.report("a", Report(current_step=2, total_steps=4, message="m", eta=3))
    )
    assert await store.get("a") == task
    task = await store.writer.submit(
        store.report("a", Report(result=TaskResult("https://cdn.example/b.mp4")))
    )
    assert await store.get("a") == task


async def test_a_retry_that_fails_within_the_same_commit_is_stored_whole(store: Store) -> None:
    await store.made("a")
    await store.writer.submit(store.report("a", Report(status=FAILED, progress=70)))
    store.now += 5_000
    answers = await store.writer.submit_many([retry(store, "a"), store.report("a", Report(status=FAILED))])
    stored = await store.get("a")
    assert stored == answers[1]
    assert (stored.state.attempt, stored.state.queued_at, stored.state.progress) == (2, NOW + 5_000, 0)


# Refusals and poison


async def test_a_refusal_is_an_answer_and_touches_nothing_else(store: Store) -> None:
    def refuse(task: Task | None, now: int) -> tuple[Task | None, Any]:
        raise TaskwireError("TASK_FINISHED")

    answers = await store.writer.submit_many(
        [store.create("a"), Command(store.table, "a", refuse), store.report("a", progress(5))]
    )
    assert codes(answers) == ["1", "TASK_FINISHED", "2"]
    assert store.writer.stats.failures == 0
    with pytest.raises(TaskwireError, match="finished"):
        await store.writer.submit(Command(store.table, "a", refuse))


async def test_a_command_with_a_bug_takes_no_other_down(store: Store) -> None:
    def broken(task: Task | None, now: int) -> tuple[Task | None, Any]:
        raise ZeroDivisionError

    commands = [store.create(f"t{number}") for number in range(20)]
    commands[7] = Command(store.table, "t7", broken)
    answers = codes(await store.writer.submit_many(commands))
    assert answers == ["INTERNAL_ERROR" if number == 7 else "1" for number in range(20)]
    assert len(await store.reader.get_many([f"t{number}" for number in range(20)])) == 19
    assert len(store.published) == 19


POISON: dict[str, Callable[[Store], Command]] = {
    "a lone surrogate in text": lambda store: store.create("bad", prompt="\ud800"),
    "a lone surrogate in JSON": lambda store: store.create("bad", metadata={"x": "\udfff"}),
    "a lone surrogate in a report": lambda store: store.report("good", Report(message="\ud800")),
    "not JSON": lambda store: store.create("bad", metadata={"x": object()}),
    "an integer beyond 64 bits": lambda store: store.create("bad", created_at=2**70),
    "an integer beyond 64 bits in JSON": lambda store: store.create("bad", metadata={"x": 2**70}),
    "an integer beyond 64 bits in a report": lambda store: store.report("good", Report(current_step=2**70)),
}
ONLY_POSTGRES: dict[str, Callable[[Store], Command]] = {
    "NUL in text": lambda store: store.create("bad", prompt="a\x00b"),
    "NUL in JSON": lambda store: store.create("bad", metadata={"x": "a\x00b"}),
    "NUL in a report": lambda store: store.report("good", Report(message="a\x00b")),
    "an id that is too long": lambda store: store.create("x" * 200),
    "an integer beyond 63 bits": lambda store: store.report("good", Report(current_step=2**63)),
}


async def check_isolated(store: Store, poison: Command) -> None:
    """The poison is refused, at once and without a word of the reason; what came with it is stored."""
    await store.made("good", "other")
    commands = [store.create("first"), poison, store.report("other", progress(5)), store.create("last")]
    started = time.monotonic()
    answers = codes(await store.writer.submit_many(commands))
    assert answers == ["1", "INTERNAL_ERROR", "2", "1"]
    assert time.monotonic() - started < scaled(3), "taken for a database that is away"
    assert set(await store.reader.get_many(["first", "last", "bad"])) == {"first", "last"}
    assert (await store.get("good")).revision == 1
    assert {id for id, _, _ in store.told} == {"first", "other", "last"}
    assert codes([await store.writer.submit(store.report("good", progress(7)))]) == ["2"]


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_data_that_cannot_be_stored_takes_no_other_down(
    store: Store, poison: Callable[[Store], Command]
) -> None:
    await check_isolated(store, poison(store))


@on_postgres
@pytest.mark.parametrize("poison", ONLY_POSTGRES.values(), ids=ONLY_POSTGRES.keys())
async def test_data_that_postgresql_cannot_store_takes_no_other_down(
    store: Store, poison: Callable[[Store], Command]
) -> None:
    await check_isolated(store, poison(store))


async def test_numbers_that_json_does_not_know_do_not_poison_what_is_read_with_them(store: Store) -> None:
    odd = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
    await store.writer.submit_many([store.create("odd", metadata=odd), store.create("good")])
    store.writer._cache.clear()
    answers = await store.writer.submit_many([store.report(id, progress(5)) for id in ("good", "odd")])
    assert codes(answers) == ["2", "2"]
    assert (await store.get("odd")).spec.metadata == dict.fromkeys(odd)


# Idempotency keys


def guarded(store: Store, id: str, key: str = "k", fingerprint: str = "f", scope: str = "ann") -> Command:
    return store.create(id, Guard(scope, key, fingerprint))


async def test_a_key_used_again_finds_what_it_made(store: Store) -> None:
    first = await store.writer.submit(guarded(store, "a"))
    await store.writer.submit(store.report("a", progress(5)))
    store.published.clear()
    again = await store.writer.submit(guarded(store, "b"))
    assert (again.spec, again.revision) == (first.spec, 2)
    assert store.published == []
    assert await store.reader.get_many(["b"]) == {}


async def test_a_key_used_twice_in_one_commit_makes_one_thing(store: Store) -> None:
    answers = await store.writer.submit_many([guarded(store, f"t{number}") for number in range(5)])
    assert {task.spec.id for task in answers} == {"t0"}
    assert store.told == [("t0", 1, STATE)]


async def test_a_key_used_for_a_different_request_is_refused(store: Store) -> None:
    answers = await store.writer.submit_many([guarded(store, "a"), guarded(store, "b", fingerprint="other")])
    assert codes(answers) == ["1", "IDEMPOTENCY_KEY_REUSED"]
    with pytest.raises(InvalidRequest, match="'k' was used for a different request"):
        await store.writer.submit(guarded(store, "c", fingerprint="other"))


async def test_keys_of_different_users_do_not_meet(store: Store) -> None:
    answers = await store.writer.submit_many(
        [guarded(store, "a", scope="ann"), guarded(store, "b", scope="bob")]
    )
    assert [task.spec.id for task in answers] == ["a", "b"]


async def test_a_refused_command_does_not_use_its_key(store: Store) -> None:
    def refuse(task: Task | None, now: int) -> tuple[Task | None, Any]:
        raise TaskwireError("RATE_LIMITED")

    refused = Command(store.table, "a", refuse, "user:ann", Guard("ann", "k", "f"))
    answers = await store.writer.submit_many([refused, guarded(store, "b")])
    assert codes(answers) == ["RATE_LIMITED", "1"]


async def test_a_key_whose_thing_was_removed_is_a_conflict(backend: Backend, store: Store) -> None:
    await store.writer.submit(guarded(store, "a"))
    backend.ask("DELETE FROM tasks")
    with pytest.raises(TaskwireError) as refusal:
        await store.writer.submit(guarded(store, "b"))
    assert refusal.value.code == "CONFLICT"


async def test_one_key_on_two_nodes_at_once_makes_one_thing(backend: Backend) -> None:
    async with open_store(backend.url) as one, open_store(backend.url) as two:
        for number in range(15):
            key = f"k{number}"
            answers = await asyncio.gather(
                one.writer.submit(guarded(one, f"one{number}", key)),
                two.writer.submit(guarded(two, f"two{number}", key)),
                one.writer.submit(one.create(f"other{number}")),
            )
            assert answers[0].spec.id == answers[1].spec.id
        assert len(await one.reader.page(TaskFilter(), before=None, limit=99)) == 30
        assert len(one.published) + len(two.published) == 30


# Several writers


async def test_a_change_by_another_writer_is_seen_in_spite_of_the_cache(backend: Backend) -> None:
    async with open_store(backend.url) as one, open_store(backend.url) as two:
        await one.made("a")
        revision = 1
        for _ in range(5):
            for store in (one, two):
                revision += 1
                task = await store.writer.submit(store.report("a", Report(message=f"m{revision}")))
                assert task.revision == revision
        await one.writer.submit(one.report("a", Report(status=CANCELLED)))
        late = await two.writer.submit(two.report("a", Report(status=COMPLETED)))
        assert late.state.status is CANCELLED


async def test_two_writers_on_the_same_tasks_never_give_a_revision_twice(backend: Backend) -> None:
    ids = [f"t{number}" for number in range(12)]
    async with open_store(backend.url, timeout=30) as one, open_store(backend.url, timeout=30) as two:
        await one.made(*ids)

        async def hammer(store: Store, offset: int) -> list[tuple[str, int]]:
            given = []
            for turn in range(15):
                order = ids[offset:] + ids[:offset] if turn % 2 else list(reversed(ids))
                reports = [Report(message=f"{offset}.{turn}.{number}") for number in range(3)]
                answers = await store.writer.submit_many(
                    [store.report(id, r) for id in order for r in reports]
                )
                given += [(task.spec.id, task.revision) for task in answers]
            return given

        given = await asyncio.gather(*(hammer(store, offset) for store in (one, two) for offset in (0, 5)))
        everything = [each for part in given for each in part]
        assert len(everything) == 4 * 15 * 36
        assert len(set(everything)) == len(everything)
        for id in ids:
            revisions = sorted(revision for name, revision in everything if name == id)
            assert revisions == list(range(2, 182))
            assert (await one.get(id)).revision == 181
        told = one.told + two.told
        assert len(set(told)) == len(told)
        for store in (one, two):
            for id in ids:
                seen = [revision for name, revision, _ in store.told if name == id]
                assert seen == sorted(seen)
        assert one.writer.stats.failures + two.writer.stats.failures == 0, (
            "a deadlock, or a lock not had in time"
        )


# Trouble with the database


@on_postgres
async def test_connections_that_are_cut_while_writing_cost_nothing_but_time(
    backend: Backend, postgres: Postgres
) -> None:
    name = backend.url.rpartition("/")[2]
    async with open_store(backend.url, timeout=scaled(20)) as store:
        await store.made("a", "b")
        stop = asyncio.Event()
        revisions: dict[str, list[int]] = {"a": [], "b": []}

        async def write(id: str) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                task = await store.writer.submit(store.report(id, Report(message=f"{number}")))
                revisions[id].append(task.revision)

        writers = [asyncio.create_task(write(id)) for id in "ab"]
        for _ in range(6):
            seen = len(revisions["a"])
            await asyncio.to_thread(
                postgres.sql,
                f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'",
            )
            await eventually_async(partial(_longer, revisions["a"], seen + 20))
        stop.set()
        await asyncio.gather(*writers)
        assert store.writer.stats.failures > 0
        for id, given in revisions.items():
            assert given == sorted(set(given))
            assert (await store.get(id)).revision == given[-1]
            told = [revision for name, revision, _ in store.told if name == id]
            assert set(given) <= set(told)


def _longer(given: list[int], length: int) -> bool:
    return len(given) > length


class CutOff(Database):
    """Loses its connection after the commit has reached the database and before the answer has come."""

    cut = 0

    async def transact(self, work: Callable[[Connection], T]) -> T:
        done = await super().transact(work)
        if self.cut:
            self.cut -= 1
            raise OperationalError("COMMIT", None, ConnectionResetError("gone"))
        return done


async def test_a_commit_whose_answer_was_lost_is_published_all_the_same(backend: Backend) -> None:
    """The second try finds nothing to change; nobody would ever hear of the ending."""
    database = CutOff(backend.url)
    async with open_store(backend.url, database=database) as store:
        await store.made("a", "b")
        database.cut = 2
        done, going = await store.writer.submit_many(
            [store.report("a", Report(status=COMPLETED)), store.report("b", Report(status=PROCESSING))]
        )
        assert (done.revision, going.revision) == (2, 2)
        assert store.told == [("a", 2, FINAL), ("b", 2, STATE)]
        store.published.clear()
        database.cut = 1
        made = await store.writer.submit(guarded(store, "c"))
        assert store.told == [("c", 1, STATE)]
        assert made == await store.get("c")


async def test_what_was_published_before_is_not_published_again_for_a_lost_answer(backend: Backend) -> None:
    database = CutOff(backend.url)
    async with open_store(backend.url, database=database) as store:
        await store.made("a")
        database.cut = 1
        await store.writer.submit(store.report("a", Report()))
        assert database.cut == 0
        assert store.told == []


async def test_a_creation_whose_answer_was_lost_makes_one_thing(backend: Backend) -> None:
    database = CutOff(backend.url)
    async with open_store(backend.url, database=database) as store:
        database.cut = 1
        made = await store.writer.submit(store.create("a"))
        assert made == await store.get("a")
        assert store.told == [("a", 1, STATE)]
        assert [entry.type for entry in await store.reader.timeline("a", limit=9)] == ["created"]


@contextlib.contextmanager
def locked(backend: Backend) -> Iterator[None]:
    """Somebody else holds SQLite's write lock."""
    connection = sqlite3.connect(backend.url.partition("///")[2], isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@on_sqlite
async def test_a_locked_database_is_waited_for(backend: Backend) -> None:
    async with open_store(backend.url, timeout=scaled(20), busy_timeout=0.1) as store:
        await store.made("a")
        with locked(backend):
            waiting = asyncio.create_task(store.writer.submit(store.report("a", progress(5))))
            await eventually_async(lambda: store.writer.stats.failures > 0)
            assert not waiting.done()
            assert (await store.get("a")).revision == 1, "reading goes on"
        assert (await waiting).revision == 2
        assert store.told == [("a", 2, STATE)]


async def test_a_database_that_is_away_is_said_to_be_and_then_found_again(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    async with (
        open_store(backend.url, timeout=0.3, busy_timeout=0.2) as store,
        contextlib.AsyncExitStack() as stack,
    ):
        await store.made("a")
        if backend.is_sqlite:
            stack.enter_context(locked(backend))
        else:
            postgres: Postgres = request.getfixturevalue("postgres")
            stack.callback(postgres.start)
            await asyncio.to_thread(postgres.stop)
        answers = await store.writer.submit_many([store.report("a", progress(5)), store.create("b")])
        assert codes(answers) == ["UNAVAILABLE", "UNAVAILABLE"]
        assert store.published == []
        if not backend.is_sqlite:
            with pytest.raises(Unavailable):
                await store.get("a")
            with pytest.raises(Unavailable):
                await store.database.ping()
        await stack.aclose()
        await eventually_async(lambda: _writes(store))
        assert (await store.get("a")).state.progress == 9


async def test_where_news_may_have_been_lost_it_is_said(backend: Backend) -> None:
    """A commit may have been taken though its answer never came; subscribers are caught up by what is stored."""
    losses: list[int] = []
    database = CutOff(backend.url)
    async with open_store(
        backend.url, database=database, timeout=0.05, lost=lambda: losses.append(len(losses))
    ) as store:
        await store.made("a")
        assert losses == []
        database.cut = 1000
        with pytest.raises(Unavailable):
            await store.writer.submit(store.report("a", Report(status=COMPLETED)))
        assert losses == [0]
        assert store.told == []
        assert (await store.get("a")).state.status is COMPLETED


async def _writes(store: Store) -> bool:
    try:
        await store.writer.submit(store.report("a", progress(9)))
    except Unavailable:
        return False
    return True


async def test_a_full_queue_takes_nothing(backend: Backend) -> None:
    async with open_store(backend.url, started=False, max_queue=5) as store:
        first = asyncio.create_task(store.writer.submit_many([store.create(f"a{n}") for n in range(4)]))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="waiting to be stored"):
            await store.writer.submit_many([store.create("b"), store.create("c")])
        last = asyncio.create_task(store.writer.submit(store.create("d")))
        await asyncio.sleep(0)
        assert store.writer.backlog == 5
        store.writer.start()
        await asyncio.gather(first, last)
        assert len(store.published) == 5
        assert (await store.writer.submit(store.create("e"))).revision == 1
        await store.writer.close()


async def test_closing_commits_what_was_submitted_and_refuses_what_comes_later(backend: Backend) -> None:
    async with open_store(backend.url, max_batch=10) as store:
        waiting = [asyncio.create_task(store.writer.submit(store.create(f"t{n}"))) for n in range(55)]
        await asyncio.sleep(0)
        await store.writer.close()
        assert all(task.done() for task in waiting)
        assert len(await store.reader.page(TaskFilter(), before=None, limit=99)) == 55
        with pytest.raises(TaskwireError) as refusal:
            await store.writer.submit(store.create("late"))
        assert refusal.value.code == "SERVER_SHUTDOWN"


async def test_whoever_gives_up_waiting_does_not_take_the_change_back(
    store: Store, logged: list[MutableMapping[str, Any]]
) -> None:
    waiting = asyncio.create_task(store.writer.submit(store.create("a")))
    await asyncio.sleep(0)
    waiting.cancel()
    await eventually_async(lambda: store.told == [("a", 1, STATE)])
    assert (await store.writer.submit(store.create("b"))).revision == 1
    assert logged == []


@pytest.mark.parametrize("part", ["publish", "observer"])
async def test_trouble_with_telling_does_not_undo_the_answer(backend: Backend, part: str) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("cannot tell")

    losses: list[int] = []
    async with open_store(
        backend.url, publish=fail if part == "publish" else None, lost=lambda: losses.append(1)
    ) as store:
        if part == "observer":
            store.writer.stats.observers.append(fail)
        assert (await store.writer.submit(store.create("a"))).revision == 1
        assert (await store.writer.submit(store.report("a", progress(5)))).revision == 2
        assert len(losses) == (2 if part == "publish" else 0)


async def test_answers_given_before_a_bug_shows_are_not_taken_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One half of a split commit is answered; then something fails that should not."""
    done = store.writer._done

    def fail_later(*arguments: Any) -> None:
        done(*arguments)
        monkeypatch.setattr(store.writer, "_done", broken)

    def broken(*_: Any) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(store.writer, "_done", fail_later)

    def poison(task: Task | None, now: int) -> tuple[Task | None, Any]:
        raise RuntimeError

    commands = [store.create("a"), Command(store.table, "x", poison), store.create("b"), store.create("c")]
    answers = await store.writer.submit_many(commands)
    assert answers[0].revision == 1
    assert codes(answers[1:]) == ["INTERNAL_ERROR"] * 3
    assert (await store.writer.submit(store.create("d"))).revision == 1


# Bounds and figures


async def test_the_cache_is_bounded_and_keeps_no_finished_work(backend: Backend) -> None:
    async with open_store(backend.url, cache_size=10) as store:
        await store.made(*(f"t{number}" for number in range(30)))
        assert len(store.writer._cache) == 10
        await store.writer.submit(store.report("t29", Report(status=COMPLETED)))
        assert ("task", "t29") not in store.writer._cache
        assert (await store.writer.submit(store.report("t0", progress(5)))).revision == 2


async def test_running_work_is_not_read_again_for_each_report(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.made("a")
    loads: list[list[str]] = []
    load = store.table.load

    def counted(connection: Connection, ids: Sequence[str]) -> dict[str, Task]:
        loads.append(list(ids))
        return load(connection, ids)

    monkeypatch.setattr(store.table, "load", counted)
    for value in range(1, 10):
        await store.writer.submit(store.report("a", progress(value)))
    assert loads == []


async def test_observers_hear_of_every_commit_that_changed_something(store: Store) -> None:
    seen: list[tuple[int, float, float]] = []
    store.writer.stats.observers.append(lambda *figures: seen.append(figures))
    await store.writer.submit_many([store.create("a"), store.create("b")])
    await store.writer.submit(store.report("a", Report()))
    assert [changes for changes, _, _ in seen] == [2]
    assert seen[0][1] > 0
    assert seen[0][2] >= 0


async def test_nothing_submitted_is_nothing_done(store: Store) -> None:
    assert await store.writer.submit_many([]) == []
    assert store.writer.stats.commits == 0


async def test_the_event_of_a_task_names_its_rooms(store: Store) -> None:
    await store.writer.submit_many([store.create("a"), store.create("b", owner_id="bob", team_id="blue")])
    first, second = store.published
    assert (first.topic, first.rooms, first.owner_id) == ("task:a", ("user:user_owner",), "user_owner")
    assert (second.rooms, second.urgency) == (("user:bob", "team:blue"), Urgency.STATE)
