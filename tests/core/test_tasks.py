"""The task's state machine: legal histories whatever is reported, and each verdict by itself."""

from dataclasses import replace
from math import inf, isfinite, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskwire.core.tasks import (
    CANCELLED,
    CANCELLED_ERROR,
    COMPLETED,
    FAILED,
    NO_REASON,
    PROCESSING,
    QUEUED,
    TERMINAL,
    Report,
    TaskError,
    TaskResult,
    TaskState,
    TaskStatus,
    Verdict,
    apply_report,
    cancel,
    metrics,
    new_task,
    next_attempt,
    normal_number,
)
from tests.support.tasks import NOW, make_spec, state_of

ERROR = TaskError("GPU_LOST", "The card is gone.", {"slot": 3}, True)
RESULT = TaskResult("https://cdn.example/a.mp4", duration=5)

odd_numbers = st.one_of(
    st.integers(-5, 130),
    st.floats(-5, 130),
    st.just(nan),
    st.just(inf),
    st.just(-inf),
    st.integers(10**30, 10**31),
)
steps = st.one_of(st.none(), st.integers(-2, 12), st.just(10**400))
reports = st.builds(
    Report,
    status=st.one_of(st.none(), st.none(), st.sampled_from(TaskStatus)),
    progress=st.one_of(st.none(), odd_numbers),
    current_step=steps,
    total_steps=steps,
    message=st.one_of(st.none(), st.sampled_from(["", "one", "two"])),
    eta=st.one_of(st.none(), odd_numbers),
    result=st.one_of(st.none(), st.just(RESULT)),
    error=st.one_of(st.none(), st.just(ERROR)),
    attempt=st.one_of(st.none(), st.integers(1, 4)),
)
going_on = reports.map(
    lambda report: replace(report, status=None if report.status in TERMINAL else report.status)
)

ALLOWED = {
    QUEUED: {QUEUED, PROCESSING, COMPLETED, FAILED, CANCELLED},
    PROCESSING: {PROCESSING, COMPLETED, FAILED, CANCELLED},
}


def check_state(state: TaskState) -> None:
    """What holds of a state by itself."""
    assert 0 <= state.progress <= 100
    assert isinstance(state.progress, int) or state.progress == round(state.progress, 2)
    assert state.eta is None or (isfinite(state.eta) and state.eta >= 0)
    assert state.finished is (state.finished_at is not None) is (state.status in TERMINAL)
    assert (state.error is not None) is (state.status in (FAILED, CANCELLED))
    if state.status is COMPLETED:
        assert state.progress == 100
        assert state.result is not None
        assert state.started_at is not None
        assert state.eta == 0
    if state.status is CANCELLED:
        assert state.error is not None
        assert state.error.code == "CANCELLED"
    if state.status is QUEUED:
        assert state.started_at is None
    if state.status is PROCESSING:
        assert state.started_at is not None
    times = [state.queued_at, state.started_at, state.finished_at]
    known = [at for at in times if at is not None]
    assert known == sorted(known)
    assert known[-1] <= state.updated_at
    for now in (state.updated_at, state.updated_at - 10_000, state.updated_at + 10_000):
        found = metrics(state, now)
        assert min(found.queue_time, found.process_time, found.total_time) >= 0
        assert found.total_time == round(found.queue_time + found.process_time, 3)


def check_step(old: TaskState, new: TaskState) -> None:
    """What holds between a state and the next."""
    if new is old:
        return
    assert new.revision == old.revision + 1
    assert new.updated_at >= old.updated_at
    if new.attempt != old.attempt:
        assert new.attempt == old.attempt + 1
        assert old.status is not COMPLETED
        assert new.queued_at >= old.updated_at
        assert (new.status, new.progress, new.current_step, new.started_at) == (QUEUED, 0, None, None)
        return
    assert new.status in ALLOWED[old.status]
    assert new.progress >= old.progress
    assert new.queued_at == old.queued_at
    assert old.started_at is None or new.started_at == old.started_at
    assert replace(new, revision=old.revision, updated_at=old.updated_at) != old, "a revision without news"


class TaskMachine(RuleBasedStateMachine):
    """Two reporters, cancelling and retrying people, crashes, and a clock that is set back at times."""

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.state = new_task(make_spec()).state
        self.sent: list[Report] = []
        self.believed = [1, 1]  # the attempt each reporter thinks it works on

    def take(self, new: TaskState) -> None:
        check_step(self.state, new)
        self.state = new

    def give(self, report: Report) -> None:
        old = self.state
        new, verdict = apply_report(old, report, self.now)
        self.take(new)
        assert (verdict is Verdict.APPLIED) is (new is not old)
        if report.attempt not in (None, old.attempt):
            assert verdict is Verdict.OLD_ATTEMPT
        elif old.finished:
            assert verdict is Verdict.FINISHED
        elif report.status in TERMINAL:
            assert verdict is Verdict.APPLIED
            assert new.status is report.status

    @rule(report=reports)
    def anything(self, report: Report) -> None:
        self.sent.append(report)
        self.give(report)

    @rule(who=st.integers(0, 1), report=going_on)
    def reporter_goes_on(self, who: int, report: Report) -> None:
        self.sent.append(replace(report, attempt=self.believed[who]))
        self.give(self.sent[-1])

    @rule(who=st.integers(0, 1))
    def reporter_looks(self, who: int) -> None:
        self.believed[who] = self.state.attempt

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def an_old_report_arrives_again(self, data: st.DataObject) -> None:
        self.give(data.draw(st.sampled_from(self.sent)))

    @rule(report=reports)
    def twice_at_once(self, report: Report) -> None:
        self.give(report)
        after, verdict = apply_report(self.state, report, self.now)
        assert after is self.state, f"the repeat was {verdict}"

    @rule()
    def somebody_cancels(self) -> None:
        new, verdict = cancel(self.state, self.now)
        assert verdict is (Verdict.FINISHED if self.state.finished else Verdict.APPLIED)
        self.take(new)
        assert self.state.finished

    @rule()
    def retried_or_interrupted(self) -> None:
        old = self.state
        self.take(next_attempt(old, self.now, message="again"))
        assert (self.state is old) is (old.status is COMPLETED)

    @rule(milliseconds=st.integers(0, 100_000))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule(milliseconds=st.integers(1, 1_000_000))
    def the_clock_is_set_back(self, milliseconds: int) -> None:
        self.now -= milliseconds

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "state"):
            check_state(self.state)


TestTaskMachine = TaskMachine.TestCase


@given(
    st.lists(st.tuples(going_on, st.integers(-5_000, 5_000)), max_size=20), st.randoms(use_true_random=False)
)
def test_a_finished_attempt_is_latched_against_every_order(
    told: list[tuple[Report, int]], random: Any
) -> None:
    """However the reports of an attempt are mixed up and repeated after its end, nothing moves."""
    state, now = new_task(make_spec()).state, NOW
    for report, passed in told:
        now += passed
        state, _ = apply_report(state, replace(report, attempt=None), now)
    state, verdict = apply_report(state, Report(status=FAILED, error=ERROR), now)
    assert verdict is Verdict.APPLIED
    again = [report for report, _ in told] * 2 + [Report(status=COMPLETED), Report(status=CANCELLED)]
    random.shuffle(again)
    for report in again:
        assert apply_report(state, report, now)[0] is state


@given(st.permutations(range(1, 12)))
def test_reports_in_any_order_show_a_bar_that_only_grows_and_ends_at_the_newest(order: list[int]) -> None:
    state = new_task(make_spec()).state
    shown = []
    for number in order:
        state, verdict = apply_report(
            state, Report(progress=number * 5, message=f"at {number}"), NOW + number
        )
        shown.append(state.progress)
        best = max(order[: len(shown)])
        assert state.progress == best * 5
        assert state.message == f"at {best}"
        assert verdict is (Verdict.APPLIED if number == best else Verdict.STALE)
    assert shown == sorted(shown)


BUSY = {"status": PROCESSING, "progress": 40, "current_step": 4, "total_steps": 10, "message": "m", "eta": 9}


@pytest.mark.parametrize(
    ("state", "report", "verdict"),
    [
        ({}, Report(status=PROCESSING), Verdict.APPLIED),
        ({}, Report(status=QUEUED), Verdict.UNCHANGED),
        ({}, Report(), Verdict.UNCHANGED),
        ({}, Report(message="waiting for a card"), Verdict.APPLIED),
        ({}, Report(status=COMPLETED, result=RESULT), Verdict.APPLIED),
        (BUSY, Report(progress=41), Verdict.APPLIED),
        (BUSY, Report(progress=40), Verdict.UNCHANGED),
        (BUSY, Report(progress=40.001), Verdict.UNCHANGED),
        (BUSY, Report(progress=40, message="m", eta=9.0), Verdict.UNCHANGED),
        (BUSY, Report(progress=40, eta=8), Verdict.APPLIED),
        (BUSY, Report(eta=nan), Verdict.UNCHANGED),
        (BUSY, Report(progress=39.9, message="late"), Verdict.STALE),
        (BUSY, Report(progress=nan), Verdict.STALE),
        (BUSY, Report(progress=-1), Verdict.STALE),
        (BUSY, Report(status=QUEUED), Verdict.STALE),
        (BUSY, Report(status=QUEUED, progress=90), Verdict.STALE),
        (BUSY, Report(current_step=3), Verdict.STALE),
        (BUSY, Report(current_step=3, total_steps=4), Verdict.STALE),
        (BUSY, Report(current_step=4), Verdict.UNCHANGED),
        (BUSY, Report(current_step=5), Verdict.APPLIED),
        (BUSY, Report(progress=50, current_step=1), Verdict.APPLIED),  # steps that begin anew in each stage
        (BUSY, Report(status=FAILED, progress=10), Verdict.APPLIED),
        (BUSY, Report(progress=50, attempt=1), Verdict.APPLIED),
        (BUSY, Report(progress=50, attempt=2), Verdict.OLD_ATTEMPT),
        ({**BUSY, "attempt": 2}, Report(status=COMPLETED, attempt=1), Verdict.OLD_ATTEMPT),
        ({"status": COMPLETED}, Report(progress=50), Verdict.FINISHED),
        ({"status": COMPLETED}, Report(status=COMPLETED), Verdict.FINISHED),
        ({"status": COMPLETED}, Report(status=FAILED), Verdict.FINISHED),
        ({"status": FAILED}, Report(status=COMPLETED, result=RESULT), Verdict.FINISHED),
        ({"status": CANCELLED, "error": CANCELLED_ERROR}, Report(status=PROCESSING), Verdict.FINISHED),
        ({"status": FAILED, "attempt": 2}, Report(progress=1, attempt=1), Verdict.OLD_ATTEMPT),
    ],
)  # fmt: skip
def test_verdicts(state: dict[str, Any], report: Report, verdict: Verdict) -> None:
    before = state_of(**state)
    after, found = apply_report(before, report, NOW + 10_000)
    assert found is verdict
    assert (after is before) is (verdict is not Verdict.APPLIED)
    check_step(before, after)


@pytest.mark.parametrize(
    ("report", "status", "progress", "step"),
    [
        (Report(progress=12.3456), PROCESSING, 12.35, None),
        (Report(progress=50.0), PROCESSING, 50, None),
        (Report(progress=250), PROCESSING, 100, None),
        (Report(progress=0), PROCESSING, 0, None),
        (Report(current_step=1, total_steps=3), PROCESSING, 33.33, 1),
        (Report(current_step=9, total_steps=3), PROCESSING, 100, 9),
        (Report(current_step=2), PROCESSING, 0, 2),
        (Report(current_step=2, total_steps=0), PROCESSING, 0, 2),
        (Report(current_step=2, total_steps=4, progress=10), PROCESSING, 10, 2),
        (Report(total_steps=4), QUEUED, 0, None),
        (Report(status=QUEUED, progress=5), QUEUED, 5, None),
    ],
)
def test_what_a_report_says_of_progress(
    report: Report, status: TaskStatus, progress: float, step: int | None
) -> None:
    state, _ = apply_report(new_task(make_spec()).state, report, NOW + 5)
    assert (state.status, state.progress, state.current_step) == (status, progress, step)
    assert isinstance(state.progress, int) is (progress == int(progress))
    assert state.started_at == (NOW + 5 if status is PROCESSING else None)


def test_a_step_alone_moves_progress_once_the_number_of_steps_is_known() -> None:
    state, _ = apply_report(state_of(**BUSY), Report(current_step=6), NOW + 10_000)
    assert (state.progress, state.current_step, state.total_steps) == (60, 6, 10)


def test_steps_that_turn_out_to_be_more_do_not_take_progress_back() -> None:
    state, verdict = apply_report(state_of(**BUSY), Report(current_step=5, total_steps=100), NOW + 10_000)
    assert verdict is Verdict.APPLIED
    assert (state.progress, state.current_step, state.total_steps) == (40, 5, 100)


def test_completion_fills_in_what_was_not_said() -> None:
    state, _ = apply_report(state_of(**BUSY), Report(status=COMPLETED), NOW + 10_000)
    assert (state.status, state.progress, state.current_step, state.eta) == (COMPLETED, 100, 10, 0)
    assert (state.result, state.error, state.finished_at) == (TaskResult(), None, NOW + 10_000)
    assert state.message == "m"


def test_a_result_told_before_the_end_is_kept() -> None:
    state, _ = apply_report(state_of(**BUSY), Report(result=RESULT), NOW + 10_000)
    state, _ = apply_report(state, Report(status=COMPLETED), NOW + 11_000)
    assert state.result == RESULT


def test_completed_at_once_counts_as_started_then() -> None:
    state, _ = apply_report(new_task(make_spec()).state, Report(status=COMPLETED), NOW + 2_500)
    assert state.started_at == state.finished_at == NOW + 2_500
    assert metrics(state, NOW + 99_000).total_time == 2.5
    assert metrics(state, NOW + 99_000).process_time == 0


@pytest.mark.parametrize(
    ("report", "error"),
    [
        (Report(status=FAILED), NO_REASON),
        (Report(status=FAILED, error=ERROR), ERROR),
        (Report(status=CANCELLED), CANCELLED_ERROR),
        (Report(status=CANCELLED, error=ERROR), replace(ERROR, code="CANCELLED")),
        (Report(status=COMPLETED, error=ERROR), None),
    ],
)
def test_the_error_of_an_end(report: Report, error: TaskError | None) -> None:
    state, _ = apply_report(state_of(**BUSY), report, NOW + 10_000)
    assert state.error == error


def test_failure_keeps_how_far_it_came() -> None:
    state, _ = apply_report(state_of(**BUSY), Report(status=FAILED, progress=3), NOW + 10_000)
    assert state.progress == 40
    assert state.eta is None
    state, _ = apply_report(state_of(**BUSY), Report(status=FAILED, progress=70), NOW + 10_000)
    assert state.progress == 70


@pytest.mark.parametrize(
    ("given", "stored"),
    [(12, 12), (12.0, 12), (1.23456, 1.23), (-4, 0), (0, 0), (inf, None), (nan, None)],
)
def test_a_reported_eta_is_stored_as_it_will_be_read_again(given: float, stored: float | None) -> None:
    state, _ = apply_report(new_task(make_spec()).state, Report(progress=0, eta=given), NOW)
    assert state.eta == stored


@pytest.mark.parametrize(
    ("progress", "elapsed_ms", "eta"),
    [(50, 10_000, 10.0), (1, 1_000, 99.0), (100, 5_000, 0), (0.5, 10_000, None), (50, 100, None)],
)
def test_an_eta_is_estimated_from_the_mean_speed(progress: float, elapsed_ms: int, eta: float | None) -> None:
    state, _ = apply_report(new_task(make_spec()).state, Report(status=PROCESSING), NOW + 7_000)
    state, _ = apply_report(state, Report(progress=progress), NOW + 7_000 + elapsed_ms)
    assert state.eta == eta


def test_metrics_of_the_three_phases() -> None:
    task = new_task(make_spec())
    assert metrics(task.state, NOW + 1_500) == metrics(task.state, NOW + 1_500)
    assert metrics(task.state, NOW + 1_500).queue_time == 1.5
    state, _ = apply_report(task.state, Report(status=PROCESSING), NOW + 2_000)
    found = metrics(state, NOW + 5_000)
    assert (found.queue_time, found.process_time, found.total_time) == (2, 3, 5)
    state, _ = apply_report(state, Report(status=COMPLETED), NOW + 6_000)
    found = metrics(state, NOW + 999_000)
    assert (found.queue_time, found.process_time, found.total_time) == (2, 4, 6)


def test_the_next_attempt_begins_from_zero_and_goes_on_counting_revisions() -> None:
    old = state_of(status=FAILED, revision=9, progress=70, message="gone", result=RESULT)
    new = next_attempt(old, NOW + 8_000, message="again")
    assert new == TaskState(
        queued_at=NOW + 8_000, updated_at=NOW + 8_000, revision=10, attempt=2, message="again"
    )


def test_a_clock_set_back_makes_no_queue_time_up() -> None:
    old = state_of(status=FAILED)
    state = next_attempt(old, NOW - 3_600_000)
    state, _ = apply_report(state, Report(status=PROCESSING), NOW - 3_599_000)
    assert metrics(state, NOW).queue_time == 0


def test_a_completed_task_has_no_next_attempt() -> None:
    old = state_of(status=COMPLETED)
    assert next_attempt(old, NOW) is old


@pytest.mark.parametrize(
    ("value", "normal"), [(35.0, 35), (35, 35), (1.005, 1.0), (12.346, 12.35), (0.001, 0)]
)
def test_normal_numbers(value: float, normal: float) -> None:
    assert normal_number(value) == normal
    assert isinstance(normal_number(value), int) is (normal == int(normal))
