"""Tasks as rows and as messages between nodes, and back."""

import contextlib
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskwire.core.codec import (
    TASK_COLUMNS,
    error_from_json,
    error_to_json,
    event_from_json,
    event_to_json,
    result_from_json,
    result_to_json,
    state_to_row,
    task_from_row,
    task_to_columns,
)
from taskwire.core.events import Event, Urgency
from taskwire.core.tasks import Task, TaskError, TaskResult, TaskSpec, TaskState, TaskStatus, normal_number

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(text, json, max_size=3)
whole = st.integers(0, 2**53)
two_decimals = st.one_of(whole, st.floats(0, 1e9).map(normal_number))  # as the state machine makes them
results = st.builds(TaskResult, text, text, st.one_of(whole, st.floats(0, 1e6)), whole, text, extra=objects)
errors = st.builds(TaskError, text, text, json, st.booleans())
tasks = st.builds(
    Task,
    st.builds(TaskSpec, text, text, text, text, whole, st.none() | text, text, text, objects, objects),
    st.builds(
        TaskState, whole, whole, whole, whole, st.sampled_from(TaskStatus), two_decimals, st.none() | whole,
        st.none() | whole, text, st.none() | two_decimals, st.none() | whole, st.none() | whole,
        st.none() | results, st.none() | errors,
    ),
)  # fmt: skip


@given(tasks)
def test_a_task_survives_its_row(task: Task) -> None:
    columns = task_to_columns(task)
    assert tuple(columns) == TASK_COLUMNS
    row = orjson.loads(orjson.dumps([columns[name] for name in TASK_COLUMNS]))
    assert task_from_row(row) == task


@given(tasks)
def test_the_row_of_an_update_says_the_same_as_the_columns(task: Task) -> None:
    columns = task_to_columns(task)
    names = ("id", *TASK_COLUMNS[TASK_COLUMNS.index("queued_at") :])
    assert orjson.loads(orjson.dumps(state_to_row(task))) == orjson.loads(
        orjson.dumps([columns[name] for name in names])
    )


def test_numbers_that_a_database_made_floats_come_back_whole() -> None:
    columns = task_to_columns(Task(TaskSpec("a", "b", "c", "d", 1), TaskState(1, 1)))
    row = list({**columns, "progress": 35.0, "eta": 2.0}.values())
    state = task_from_row(row).state
    assert (repr(state.progress), repr(state.eta)) == ("35", "2")


@given(st.none() | results)
def test_results(result: TaskResult | None) -> None:
    assert result_from_json(orjson.loads(orjson.dumps(result_to_json(result)))) == result


@given(st.none() | errors)
def test_errors(error: TaskError | None) -> None:
    assert error_from_json(orjson.loads(orjson.dumps(error_to_json(error)))) == error


@given(tasks, st.sampled_from(Urgency), st.lists(text, max_size=2))
def test_an_event_survives_the_way_between_nodes(task: Task, urgency: Urgency, rooms: list[str]) -> None:
    event = Event("task:" + task.id, task.revision, urgency, task, task.spec.owner_id, tuple(rooms), 12.5)
    heard = event_from_json(orjson.loads(orjson.dumps(event_to_json(event))))
    assert heard == replace(event, committed_at=0.0)  # another process's clock says nothing here


VALID: dict[str, Any] = event_to_json(
    Event("task:a", 1, Urgency.STATE, Task(TaskSpec("a", "b", "c", "d", 1), TaskState(1, 1)), "b")
)


@pytest.mark.parametrize(
    "changes",
    [{"urgency": 7}, {"urgency": None}, {"task": []}, {"task": None}, {"rooms": 1}, {"task": [1] * 24}],
)
def test_what_is_no_event_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        event_from_json({**VALID, **changes})


@pytest.mark.parametrize("name", VALID)
def test_an_event_without_a_part_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="wanted an event"):
        event_from_json({key: value for key, value in VALID.items() if key != name})


@given(json, st.lists(st.tuples(st.integers(0, len(TASK_COLUMNS) - 1), json), max_size=4))
def test_no_json_does_worse_than_to_be_refused(value: Any, changes: list[tuple[int, Any]]) -> None:
    row = list(VALID["task"])
    for place, part in changes:
        row[place] = part
    for candidate in (value, {**VALID, "task": value}, {**VALID, "task": row}):
        with contextlib.suppress(ValueError):
            event_from_json(candidate)
