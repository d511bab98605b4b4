"""What can be done with tasks, and by whom."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from taskwire.core.errors import InvalidRequest, NotFound, TaskwireError
from taskwire.core.filters import TaskFilter
from taskwire.core.ids import is_id
from taskwire.core.principals import Principal
from taskwire.core.tasks import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PROCESSING,
    QUEUED,
    Report,
    Task,
    TaskStatus,
    Verdict,
)
from taskwire.services.tasks import AFTER_CRASH, AFTER_RESTART, INTERRUPTED, Reported, TaskDraft
from tests.support.dispatch import ANN, BOB, EVE, ROOT, Node, open_node
from tests.support.store import Backend
from tests.support.tasks import NOW

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]

UNKNOWN = "video_of_nobody"


@pytest.fixture
async def node(backend: Backend) -> AsyncIterator[Node]:
    async with open_node(backend.url, started=False) as opened:
        yield opened


async def refusal(doing: Awaitable[Any]) -> str:
    """The code that ``doing`` is refused with."""
    with pytest.raises(TaskwireError) as error:
        await doing
    return error.value.code


async def external(node: Node, principal: Principal = ANN, **draft: Any) -> Task:
    return await node.create(principal, provider="external", **draft)


async def bring(node: Node, task: Task, status: TaskStatus) -> None:
    await node.tasks.report_own(task.spec.id, Report(status=status), actor="test")


# Who may do what

Doing = Callable[[Node, Principal, str], Awaitable[Any]]
DOINGS: dict[str, Doing] = {
    "get": lambda node, who, id: node.tasks.get(who, id),
    "timeline": lambda node, who, id: node.tasks.timeline(who, id, limit=9),
    "refresh": lambda node, who, id: node.tasks.refresh(who, id),
    "report": lambda node, who, id: node.tasks.report(who, id, Report(progress=1)),
    "cancel": lambda node, who, id: node.tasks.cancel(who, id),
    "retry": lambda node, who, id: node.tasks.retry(who, id),
}


@pytest.mark.parametrize("doing", DOINGS.values(), ids=DOINGS.keys())
async def test_what_is_foreign_looks_like_what_is_unknown(node: Node, doing: Doing) -> None:
    task = await external(node)
    answers = []
    for who, id in [(EVE, task.spec.id), (EVE, UNKNOWN), (ROOT, UNKNOWN), (BOB, task.spec.id)]:
        with pytest.raises(NotFound) as error:
            await doing(node, who, id)
        answers.append((error.value.code, error.value.message, error.value.details))
    assert set(answers) == {("TASK_NOT_FOUND", "There is no such task.", None)}
    assert (await node.tasks.get(ANN, task.spec.id)) == task


@pytest.mark.parametrize("who", [ANN, BOB, ROOT], ids=["owner", "member", "admin"])
async def test_owners_members_and_admins_may(node: Node, who: Principal) -> None:
    task = await external(node, team_id="blue")
    id = task.spec.id
    assert await node.tasks.get(who, id) == task
    assert [entry.type for entry in await node.tasks.timeline(who, id, limit=9)] == ["created"]
    event, stale = await node.tasks.refresh(who, id)
    assert (event.entity, event.topic, stale) == (task, f"task:{id}", None)
    assert (await node.tasks.report(who, id, Report(progress=5))).revision == 2
    assert (await node.tasks.cancel(who, id)).state.status is CANCELLED
    assert (await node.tasks.retry(who, id)).state.attempt == 2


async def test_many_reports_are_refused_one_by_one(node: Node) -> None:
    mine, foreign, rendered = await external(node), await external(node, EVE), await node.create()
    answers = await node.tasks.report_many(
        ANN, [(id, Report(progress=5)) for id in (mine.spec.id, foreign.spec.id, UNKNOWN, rendered.spec.id)]
    )
    codes = [each.code if isinstance(each, TaskwireError) else each for each in answers]
    taken = Reported(2, Verdict.APPLIED, PROCESSING, 1)
    assert codes == [taken, "TASK_NOT_FOUND", "TASK_NOT_FOUND", "NOT_REPORTABLE"]


@pytest.mark.parametrize(
    ("who", "where", "found"),
    [
        (ANN, TaskFilter(), "ab"),
        (BOB, TaskFilter(), "bcd"),
        (EVE, TaskFilter(), ""),
        (ROOT, TaskFilter(), "abcd"),
        (ANN, TaskFilter(owner_ids=["ann"]), "ab"),
        (ANN, TaskFilter(owner_ids=["bob"]), ""),
        (BOB, TaskFilter(owner_ids=["ann"]), ""),
        (BOB, TaskFilter(team_ids=["blue"]), "b"),
        (ANN, TaskFilter(team_ids=["red"]), ""),
        (ANN, TaskFilter(owner_ids=["bob"], team_ids=["blue", "red"]), "b"),
        (EVE, TaskFilter(owner_ids=["ann", "bob"], team_ids=["blue", "red"]), ""),
        (ROOT, TaskFilter(owner_ids=["ann"]), "ab"),
        (ROOT, TaskFilter(team_ids=["red"]), "d"),
    ],
)
async def test_a_list_shows_what_the_caller_may_see_and_filters_only_narrow_it(
    node: Node, who: Principal, where: TaskFilter, found: str
) -> None:
    await external(node, title="a")
    await external(node, title="b", team_id="blue")
    await external(node, BOB, title="c")
    await external(node, BOB, title="d", team_id="red")
    page = await node.tasks.list(who, where, before=None, limit=9)
    assert "".join(sorted(task.spec.title for task in page)) == found
    if where == TaskFilter():
        assert sum((await node.tasks.counts(who)).values()) == len(found)


async def test_what_is_no_id_is_not_even_looked_up(node: Node) -> None:
    for id in ("", "a\x00b", "\ud800", "x" * 500, "../secret", "'"):
        for doing in DOINGS.values():
            assert await refusal(doing(node, ROOT, id)) == "TASK_NOT_FOUND"
        (answer,) = await node.tasks.report_many(ROOT, [(id, Report(progress=1))])
        assert isinstance(answer, NotFound)
        assert await node.tasks.load(f"task:{id}") is None
    assert node.store.writer.stats.failures == 0


async def test_a_snapshot_is_loaded_by_topic(node: Node) -> None:
    task = await external(node)
    event = await node.tasks.load(f"task:{task.spec.id}")
    assert event is not None
    assert (event.entity, event.revision, event.owner_id) == (task, 1, "ann")
    assert await node.tasks.load(f"task:{UNKNOWN}") is None


# Creating


async def test_a_task_is_made_as_it_was_asked_for(node: Node) -> None:
    node.store.now = NOW + 7
    task = await node.create(
        title="t", description="d", prompt="p", options={"size": "2x2"}, metadata={"k": 1}, team_id="blue"
    )
    spec = task.spec
    assert (spec.owner_id, spec.team_id, spec.provider, spec.created_at) == ("ann", "blue", "fake", NOW + 7)
    assert (spec.title, spec.description, spec.prompt) == ("t", "d", "p")
    assert (spec.options, spec.metadata) == ({"size": "2x2"}, {"k": 1})
    assert is_id(spec.id)
    assert spec.id.startswith("video_")
    assert (task.state.status, task.revision) == (QUEUED, 1)
    assert await node.tasks.get(ANN, spec.id) == task
    (entry,) = await node.tasks.timeline(ANN, spec.id, limit=9)
    assert (entry.type, entry.actor) == ("created", "user:ann")


async def test_an_api_key_is_named_as_the_actor(node: Node) -> None:
    keyed = replace(ANN, key_id="key_7")
    task = await external(node, keyed)
    (entry,) = await node.tasks.timeline(ANN, task.spec.id, limit=9)
    assert entry.actor == "key:key_7"


async def test_an_unknown_provider_is_refused_with_those_there_are(node: Node) -> None:
    with pytest.raises(InvalidRequest, match="wanted one of external, fake, but got 'magic'") as error:
        await node.create(provider="magic")
    assert error.value.code == "UNKNOWN_PROVIDER"


async def test_options_are_checked_and_filled_in_by_the_provider(node: Node) -> None:
    assert (await node.create()).spec.options == {"size": "1x1"}
    with pytest.raises(InvalidRequest, match="there is no colour"):
        await node.create(options={"colour": 1})


async def test_a_team_must_be_ones_own_and_admins_may_use_any(node: Node) -> None:
    assert await refusal(node.create(EVE, team_id="blue")) == "INVALID_REQUEST"
    assert (await node.create(ROOT, team_id="blue")).spec.team_id == "blue"


DRAFT = TaskDraft("p", "fake", options={"size": "1x1"}, metadata={"a": 1, "b": 2})


async def test_a_key_used_again_gives_the_task_made_then(node: Node) -> None:
    task, new = await node.tasks.create(ANN, DRAFT, idempotency_key="k")
    assert new
    await node.tasks.cancel(ANN, task.spec.id)
    reordered = replace(DRAFT, metadata={"b": 2, "a": 1})
    again, new = await node.tasks.create(ANN, reordered, idempotency_key="k")
    assert not new
    assert (again.spec.id, again.state.status) == (task.spec.id, CANCELLED)
    other, new = await node.tasks.create(BOB, DRAFT, idempotency_key="k")
    assert new
    assert other.spec.id != task.spec.id


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "q"}, {"provider": "external"}, {"title": "t"}, {"description": "d"}, {"team_id": "blue"},
        {"options": {"size": "2x2"}}, {"metadata": {}},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
async def test_a_key_used_for_anything_else_is_refused(node: Node, change: dict[str, Any]) -> None:
    await node.tasks.create(ANN, DRAFT, idempotency_key="k")
    doing = node.tasks.create(ANN, replace(DRAFT, **change), idempotency_key="k")
    assert await refusal(doing) == "IDEMPOTENCY_KEY_REUSED"


async def test_a_full_queue_takes_no_more_but_answers_for_what_it_took(backend: Backend) -> None:
    async with open_node(backend.url, started=False, max_waiting=3) as node:
        first, _ = await node.tasks.create(ANN, DRAFT, idempotency_key="k")
        for _ in range(2):
            await node.create()
        with pytest.raises(TaskwireError, match="3 tasks wait for fake already") as error:
            await node.create()
        assert (error.value.code, error.value.retry_after) == ("RATE_LIMITED", 30)
        again, new = await node.tasks.create(ANN, DRAFT, idempotency_key="k")
        assert (again.spec.id, new) == (first.spec.id, False)
        await external(node)  # waits for no one here
        await bring(node, first, PROCESSING)
        await node.create()


# Reporting, cancelling, retrying


async def test_reports_answer_with_what_became_of_them(node: Node) -> None:
    id = (await external(node)).spec.id
    told = [
        (Report(progress=40), Verdict.APPLIED, 2),
        (Report(progress=40), Verdict.UNCHANGED, 2),
        (Report(progress=30), Verdict.STALE, 2),
        (Report(progress=50, attempt=2), Verdict.OLD_ATTEMPT, 2),
        (Report(status=COMPLETED), Verdict.APPLIED, 3),
        (Report(status=FAILED), Verdict.FINISHED, 3),
    ]
    for report, verdict, revision in told:
        answer = await node.tasks.report(ANN, id, report)
        assert (answer.verdict, answer.revision) == (verdict, revision)
    assert (await node.tasks.get(ANN, id)).state.status is COMPLETED


async def test_what_a_provider_does_is_not_reported_by_others(node: Node) -> None:
    task = await node.create()
    assert await refusal(node.tasks.report(ANN, task.spec.id, Report(progress=1))) == "NOT_REPORTABLE"
    assert await refusal(node.tasks.report(ROOT, task.spec.id, Report(progress=1))) == "NOT_REPORTABLE"
    assert (await node.tasks.get(ANN, task.spec.id)).revision == 1


@pytest.mark.parametrize(
    ("status", "cancelled", "retried"),
    [
        (QUEUED, CANCELLED, "TASK_NOT_FINISHED"),
        (PROCESSING, CANCELLED, "TASK_NOT_FINISHED"),
        (COMPLETED, "TASK_FINISHED", "TASK_FINISHED"),
        (FAILED, "TASK_FINISHED", QUEUED),
        (CANCELLED, CANCELLED, QUEUED),
    ],
)
async def test_cancelling_and_retrying(node: Node, status: TaskStatus, cancelled: str, retried: str) -> None:
    for wanted, doing in ((cancelled, node.tasks.cancel), (retried, node.tasks.retry)):
        task = await external(node)
        if status is not QUEUED:
            await bring(node, task, status)
        before = await node.tasks.get(ANN, task.spec.id)
        if isinstance(wanted, TaskStatus):
            after = await doing(ANN, task.spec.id)
            assert after.state.status is wanted
            assert after == await node.tasks.get(ANN, task.spec.id)
        else:
            assert await refusal(doing(ANN, task.spec.id)) == wanted
            assert await node.tasks.get(ANN, task.spec.id) == before


async def test_cancelling_twice_changes_nothing_the_second_time(node: Node) -> None:
    task = await external(node)
    first = await node.tasks.cancel(ANN, task.spec.id)
    assert await node.tasks.cancel(ANN, task.spec.id) == first
    assert len(node.store.published) == 2


async def test_of_two_retries_one_counts(node: Node) -> None:
    task = await external(node)
    await bring(node, task, FAILED)
    assert (await node.tasks.retry(ANN, task.spec.id)).state.attempt == 2
    assert await refusal(node.tasks.retry(ANN, task.spec.id)) == "TASK_NOT_FINISHED"


async def test_reports_of_an_attempt_that_was_retried_do_not_count(node: Node) -> None:
    id = (await external(node)).spec.id
    await node.tasks.report(ANN, id, Report(status=FAILED, attempt=1))
    await node.tasks.retry(ANN, id)
    answer = await node.tasks.report(ANN, id, Report(status=COMPLETED, attempt=1))
    assert (answer.verdict, answer.status, answer.attempt) == (Verdict.OLD_ATTEMPT, QUEUED, 2)


# Interruptions


async def interrupt(node: Node, task: Task, *, crashed: bool = True, max_crashes: int = 2) -> Task | None:
    return await node.tasks.interrupted(
        task.spec.id, actor="provider:fake", crashed=crashed, max_crashes=max_crashes
    )


async def test_work_that_was_cut_off_becomes_the_next_attempt(node: Node) -> None:
    task = await node.create()
    await bring(node, task, PROCESSING)
    again = await interrupt(node, task)
    assert again is not None
    assert (again.state.status, again.state.attempt, again.state.message) == (QUEUED, 2, AFTER_CRASH)
    assert again == await node.tasks.get(ANN, task.spec.id)
    entries = await node.tasks.timeline(ANN, task.spec.id, limit=9)
    assert [entry.type for entry in entries] == ["created", "started", "interrupted"]


@pytest.mark.parametrize("status", [COMPLETED, FAILED, CANCELLED])
async def test_what_is_over_is_not_taken_up_again(node: Node, status: TaskStatus) -> None:
    task = await node.create()
    await bring(node, task, status)
    assert await interrupt(node, task) is None
    assert (await node.tasks.get(ANN, task.spec.id)).state.status is status


async def test_work_that_had_not_begun_stays_the_attempt_it_is(node: Node) -> None:
    task = await node.create()
    assert await interrupt(node, task) == task
    assert await node.tasks.interrupted(UNKNOWN, actor="x", crashed=True, max_crashes=2) is None


async def test_a_task_that_crashes_its_workers_fails_in_the_end(node: Node) -> None:
    task = await node.create()
    for attempt in (2, 3):
        await bring(node, task, PROCESSING)
        again = await interrupt(node, task)
        assert again is not None
        assert again.state.attempt == attempt
    await bring(node, task, PROCESSING)
    assert await interrupt(node, task) is None
    state = (await node.tasks.get(ANN, task.spec.id)).state
    assert (state.status, state.error, state.attempt) == (FAILED, INTERRUPTED, 3)


async def test_restarts_in_good_order_do_not_count_as_crashes(node: Node) -> None:
    task = await node.create()
    for _ in range(5):
        await bring(node, task, PROCESSING)
        again = await interrupt(node, task, crashed=False)
        assert again is not None
        assert again.state.message == AFTER_RESTART
    await bring(node, task, PROCESSING)
    assert await interrupt(node, task) is not None


async def test_a_retry_gives_a_task_all_its_attempts_again(node: Node) -> None:
    task = await node.create()
    for expected in (2, 3, None):
        await bring(node, task, PROCESSING)
        again = await interrupt(node, task)
        assert (again.state.attempt if again else None) == expected
    await node.tasks.retry(ANN, task.spec.id)
    await bring(node, task, PROCESSING)
    assert await interrupt(node, task) is not None


async def test_a_providers_report_on_a_removed_task_says_so(node: Node) -> None:
    assert await node.tasks.report_own(UNKNOWN, Report(progress=1), actor="provider:fake") is None
