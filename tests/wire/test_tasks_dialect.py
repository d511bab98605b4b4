"""The *tasks* contract, both ways: exact field names, types and units, and the golden messages."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskwire.core.errors import ERRORS, NotFound, TaskwireError, Unavailable
from taskwire.core.events import Event, Urgency
from taskwire.core.principals import Principal
from taskwire.core.tasks import (
    CANCELLED,
    CANCELLED_ERROR,
    COMPLETED,
    FAILED,
    PROCESSING,
    QUEUED,
    Task,
    TaskResult,
    TaskStatus,
)
from taskwire.wire.commands import Authenticate, BadMessage, Ping, Refresh, Request, Subscribe, Unsubscribe
from taskwire.wire.dialects import DIALECTS
from taskwire.wire.dialects.tasks import TYPES, TasksDialect
from tests.support.golden import Golden, golden
from tests.support.tasks import NOW, make_task

VIDEO = "video_06gz9k2c5m8q4w7xj3t1nafrbe"
CLOCK = NOW + 5_000
RESULT = TaskResult("/files/v/a.mp4", "/files/v/a.jpg", 5, 1_048_576, "1280x720", {"codec": "h264"})


def absolute(url: str) -> str:
    return "https://media.example" + url if url.startswith("/") else url


DIALECT = TasksDialect(lambda: CLOCK, absolute)
ANN = Principal("user_ann", "ann", expires_at=NOW + 3_600_000)


def task_in(status: TaskStatus, **state: Any) -> Task:
    defaults: dict[TaskStatus, dict[str, Any]] = {
        QUEUED: {"revision": 1},
        PROCESSING: {
            "revision": 9, "progress": 42.5, "current_step": 51, "total_steps": 120, "eta": 3.1,
            "message": "Rendering frame 51 of 120",
        },
        COMPLETED: {"revision": 17, "result": RESULT},
        FAILED: {"revision": 12, "progress": 60},
        CANCELLED: {"revision": 12, "progress": 60, "error": CANCELLED_ERROR},
    }  # fmt: skip
    return make_task(VIDEO, spec={"title": "Lighthouse"}, status=status, **{**defaults[status], **state})


def event_in(status: TaskStatus, **state: Any) -> Event:
    task = task_in(status, **state)
    return Event("task:" + VIDEO, task.revision, Urgency.STATE, task, task.spec.owner_id)


def said(message: bytes | None) -> dict[str, Any]:
    assert message is not None
    value: dict[str, Any] = json.loads(message)
    return value


def followed(status: TaskStatus, **state: Any) -> dict[str, Any]:
    return said(DIALECT.task_view.encode(event_in(status, **state)))


def updated(status: TaskStatus, **state: Any) -> dict[str, Any]:
    return said(DIALECT.room_view.encode(event_in(status, **state)))


def batched(*statuses: TaskStatus) -> dict[str, Any]:
    pieces = [DIALECT.batch_view.encode(event_in(status)) for status in statuses]
    return said(DIALECT.batch([piece for piece in pieces if piece is not None]))


def asked(id: Any = None) -> Request:
    return Request(Ping(), id)


# Server to client

SERVER: dict[str, Callable[[], dict[str, Any]]] = {
    "server-auth-success": lambda: said(DIALECT.authenticated(asked("a1"), ANN, "session_1")),
    "server-subscribe-success": lambda: said(DIALECT.subscribed(asked("s1"), VIDEO)),
    "server-subscribe-success-without-id": lambda: said(DIALECT.subscribed(asked(), VIDEO)),
    "server-unsubscribe-success": lambda: said(DIALECT.unsubscribed(asked("u1"), VIDEO)),
    "server-pong": lambda: said(DIALECT.pong(asked("p1"))),
    "server-heartbeat": lambda: said(DIALECT.heartbeat(12, 3600.25)),
    "server-task-progress-queued": lambda: followed(QUEUED),
    "server-task-progress-processing": lambda: followed(PROCESSING),
    "server-task-progress-second-attempt": lambda: followed(
        QUEUED, revision=13, attempt=2, message="Taken up again after an interruption"
    ),
    "server-task-completed": lambda: followed(COMPLETED),
    "server-task-failed": lambda: followed(FAILED),
    "server-task-failed-cancelled": lambda: followed(CANCELLED),
    "server-task-updated-queued": lambda: updated(QUEUED),
    "server-task-updated-processing": lambda: updated(PROCESSING),
    "server-task-updated-completed": lambda: updated(COMPLETED),
    "server-task-updated-failed": lambda: updated(FAILED),
    "server-task-updated-cancelled": lambda: updated(CANCELLED),
    "server-task-updated-as-answer": lambda: said(DIALECT.state(asked("r1"), event_in(PROCESSING), None)),
    "server-task-updated-stale": lambda: said(
        DIALECT.state(asked("r1"), event_in(PROCESSING), "The provider could not be reached.")
    ),
    "server-tasks-updated": lambda: batched(PROCESSING, COMPLETED),
    "server-error-unauthorized": lambda: said(
        DIALECT.error(TaskwireError("UNAUTHORIZED", "Send `auth` with a valid token first."), "s1")
    ),
    "server-error-auth-timeout": lambda: said(DIALECT.error(TaskwireError("AUTH_TIMEOUT"))),
    "server-error-token-expired": lambda: said(DIALECT.error(TaskwireError("TOKEN_EXPIRED"))),
    "server-error-task-not-found": lambda: said(DIALECT.error(NotFound("TASK_NOT_FOUND"), "s1", VIDEO)),
    "server-error-shutdown": lambda: said(DIALECT.error(TaskwireError("SERVER_SHUTDOWN", retry_after=4.5))),
}
GOLDEN = golden("tasks")


@pytest.mark.parametrize(
    "example", [each for each in GOLDEN if each.sender == "server"], ids=lambda each: each.name
)
def test_golden_server_messages(example: Golden) -> None:
    assert SERVER[example.name]() == example.message


def test_every_server_message_has_its_golden_one() -> None:
    assert {each.name for each in GOLDEN if each.sender == "server"} == set(SERVER)


Number = (int, float)
STATUSES = {"QUEUED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"}
ERROR = {"code": str, "message": str, "details": object, "retryable": bool}
CONTRACT: dict[str, dict[str, Any]] = {
    "authSuccess": {"userId": str, "username": str, "sessionId": str, "expiresAt": int},
    "subscribeSuccess": {"videoId": str, "subscribed": {True}},
    "unsubscribeSuccess": {"videoId": str, "subscribed": {False}},
    "pong": {},
    "heartbeat": {"connectedClients": int, "uptime": Number},
    "taskProgress": {
        "videoId": str, "status": {"QUEUED", "PROCESSING"}, "progress": Number, "currentStep": int,
        "totalSteps": int, "message": str, "estimatedTimeRemaining": (int, float, type(None)), "revision": int,
    },
    "taskCompleted": {
        "videoId": str, "status": {"completed"}, "progress": {100}, "revision": int,
        "result": {
            "videoUrl": str, "thumbnailUrl": str, "duration": Number, "fileSize": int, "resolution": str,
        },
        "metrics": {"totalTime": Number, "queueTime": Number, "processTime": Number},
    },
    "taskFailed": {"videoId": str, "status": {"failed"}, "error": ERROR, "revision": int},
    "taskUpdated": {
        "videoId": str, "status": STATUSES, "progress": Number, "videoUrl": (str, type(None)),
        "error": (dict, type(None)), "revision": int,
    },
    "tasksUpdated": {"updates": list},
    "error": {"code": set(ERRORS), "message": str, "retryable": bool},
}  # fmt: skip
"""The fields of each server message as the contract writes them; more may be there, none may be missing."""


def check_fields(value: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, dict):
        assert isinstance(value, dict), where
        for name, inner in wanted.items():
            assert name in value, f"{where}: {name} is missing"
            check_fields(value[name], inner, f"{where}.{name}")
    elif isinstance(wanted, set):
        assert value in wanted, f"{where}: {value!r}"
    else:
        assert isinstance(value, wanted), f"{where}: {value!r}"
        assert wanted is not int or not isinstance(value, bool), where


@pytest.mark.parametrize("make", SERVER.values(), ids=SERVER.keys())
def test_server_messages_have_every_field_of_the_contract(make: Callable[[], dict[str, Any]]) -> None:
    message = make()
    assert message["timestamp"] == CLOCK
    assert set(message) <= {"type", "id", "timestamp", "payload"}
    check_fields(message["payload"], CONTRACT[message["type"]], message["type"])
    for update in message["payload"].get("updates", []):
        check_fields(update, CONTRACT["taskUpdated"], "update")


def test_every_type_of_the_contract_is_said() -> None:
    assert {make()["type"] for make in SERVER.values()} == set(CONTRACT)


@pytest.mark.parametrize("id", ["x", "", 7, 7.5, 0])
def test_a_reply_repeats_the_id_and_a_push_has_none(id: Any) -> None:
    request = asked(id)
    for reply in (
        DIALECT.pong(request), DIALECT.subscribed(request, VIDEO), DIALECT.unsubscribed(request, VIDEO),
        DIALECT.authenticated(request, ANN, "s"), DIALECT.state(request, event_in(QUEUED), None),
        DIALECT.error(Unavailable(), id),
    ):  # fmt: skip
        assert said(reply)["id"] == id
    for push in (followed(PROCESSING), updated(QUEUED), said(DIALECT.pong(asked())), batched(QUEUED)):
        assert "id" not in push


def test_an_unknown_time_left_and_unknown_steps_are_not_made_up() -> None:
    payload = followed(QUEUED)["payload"]
    assert payload["estimatedTimeRemaining"] is None
    assert (payload["currentStep"], payload["totalSteps"], payload["progress"]) == (0, 0, 0)


def test_urls_of_our_own_files_are_made_absolute_and_others_are_left() -> None:
    assert followed(COMPLETED)["payload"]["result"]["videoUrl"] == "https://media.example/files/v/a.mp4"
    elsewhere = TaskResult("https://cdn.example/b.mp4")
    result = followed(COMPLETED, result=elsewhere)["payload"]["result"]
    assert (result["videoUrl"], result["thumbnailUrl"]) == ("https://cdn.example/b.mp4", "")
    assert updated(COMPLETED, result=elsewhere)["payload"]["videoUrl"] == "https://cdn.example/b.mp4"
    assert updated(COMPLETED, result=TaskResult())["payload"]["videoUrl"] is None


def test_metrics_are_those_of_the_attempt_in_seconds() -> None:
    payload = followed(COMPLETED)["payload"]
    assert payload["metrics"] == {"totalTime": 3, "queueTime": 1, "processTime": 2}


def test_a_completed_task_without_result_is_complete_all_the_same() -> None:
    check_fields(followed(COMPLETED, result=None)["payload"], CONTRACT["taskCompleted"], "taskCompleted")


def test_errors_carry_what_helps() -> None:
    plain = said(DIALECT.error(TaskwireError("RATE_LIMITED")))["payload"]
    assert "details" not in plain
    full = TaskwireError("RATE_LIMITED", "Too fast.", details={"limit": 5}, retry_after=2.5)
    assert said(DIALECT.error(full, None, VIDEO))["payload"] == {
        "code": "RATE_LIMITED",
        "message": "Too fast.",
        "retryable": True,
        "details": {"limit": 5, "videoId": VIDEO, "retryAfter": 2.5},
    }
    assert full.details == {"limit": 5}


def test_an_api_key_without_end_has_no_expiry() -> None:
    message = said(DIALECT.authenticated(asked(), replace(ANN, expires_at=None), "s"))
    assert message["payload"]["expiresAt"] is None


def test_one_pending_update_is_no_batch() -> None:
    assert batched(PROCESSING) == updated(PROCESSING)
    updates = batched(QUEUED, FAILED, COMPLETED)["payload"]["updates"]
    assert updates == [updated(status)["payload"] for status in (QUEUED, FAILED, COMPLETED)]


def test_the_prompt_and_the_metadata_are_in_no_message() -> None:
    task = make_task(
        VIDEO, spec={"prompt": "the prompt", "metadata": {"k": "the metadata"}}, status=COMPLETED
    )
    event = Event("task:" + VIDEO, 1, Urgency.FINAL, task, task.spec.owner_id)
    for view in (DIALECT.task_view, DIALECT.room_view, DIALECT.batch_view):
        shown = view.encode(event) or b""
        assert b"the prompt" not in shown
        assert b"the metadata" not in shown


# Client to server


def means(request: Request) -> dict[str, Any]:
    """A decoded message in the words of the golden files."""
    command = request.command
    match command:
        case Authenticate(token, batch):
            meaning: dict[str, Any] = {"command": "authenticate", "token": token, "batch": batch}
        case Subscribe(ids) | Unsubscribe(ids) | Refresh(ids):
            meaning = {"command": type(command).__name__.lower(), "taskIds": list(ids)}
        case _:
            meaning = {"command": "ping"}
    return meaning if request.id is None else {**meaning, "id": request.id}


@pytest.mark.parametrize(
    "example", [each for each in GOLDEN if each.sender == "client"], ids=lambda each: each.name
)
def test_golden_client_messages(example: Golden) -> None:
    if example.refused is None:
        assert means(DIALECT.decode(example.wire)) == example.means
        return
    with pytest.raises(BadMessage) as refusal:
        DIALECT.decode(example.wire)
    error = said(DIALECT.error(refusal.value.error, refusal.value.id))
    assert {
        "code": error["payload"]["code"],
        **({"id": error["id"]} if "id" in error else {}),
    } == example.refused


def test_every_client_type_has_a_golden_message() -> None:
    types = {each.message["type"] for each in GOLDEN if each.sender == "client" and each.means}
    assert types == set(TYPES)


@pytest.mark.parametrize("odd", ["a b", "x" * 129, "../etc/passwd", "a\x00b", "名"])
def test_text_that_no_task_can_have_as_its_id_does_not_spoil_those_beside_it(odd: str) -> None:
    message = {"type": "requestMultipleTaskStatus", "payload": {"videoIds": [odd, VIDEO]}}
    assert DIALECT.decode(json.dumps(message)).command == Refresh((odd, VIDEO))


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("", "JSON object"),
        ("nothing", "not JSON"),
        ("[]", "JSON object"),
        ("null", "JSON object"),
        ('"auth"', "JSON object"),
        ("[" * 100_000, "not JSON"),
        ({}, "`type`: wanted text, one of auth, "),
        ({"type": 5}, "`type`"),
        ({"type": "subscribe", "payload": {}}, "but got 'subscribe'"),
        ({"type": "x" * 5000}, "but got 'xxxx"),
        ({"type": "auth"}, "`payload`: wanted an object"),
        ({"type": "auth", "payload": []}, "`payload`: wanted an object"),
        ({"type": "auth", "payload": {}}, "`payload.token`"),
        ({"type": "auth", "payload": {"token": ""}}, "`payload.token`"),
        ({"type": "auth", "payload": {"token": "x" * 20_000}}, "`payload.token`"),
        ({"type": "auth", "payload": {"token": "t", "batch": 1}}, "`payload.batch`: wanted true or false"),
        ({"type": "subscribe_task", "payload": {"videoId": 5}}, "`payload.videoId`"),
        ({"type": "subscribe_task", "payload": {"videoId": ""}}, "`payload.videoId`"),
        ({"type": "subscribe_task", "payload": {"videoId": "x" * 257}}, "`payload.videoId`"),
        ({"type": "subscribe_task", "payload": {"videoid": VIDEO}}, "`payload.videoId`"),
        ({"type": "unsubscribe_task", "payload": {}}, "`payload.videoId`"),
        ({"type": "requestTaskStatus", "payload": {"videoId": None}}, "`payload.videoId`"),
        ({"type": "requestMultipleTaskStatus", "payload": {"videoIds": []}}, "at least one"),
        ({"type": "requestMultipleTaskStatus", "payload": {"videoIds": VIDEO}}, "`payload.videoIds`"),
        ({"type": "requestMultipleTaskStatus", "payload": {"videoIds": [VIDEO, 1]}}, "`payload.videoIds`"),
        ({"type": "ping", "id": True}, "`id`"),
        ({"type": "ping", "id": {}}, "`id`"),
        ({"type": "ping", "id": "x" * 257}, "`id`"),
    ],
)
def test_a_bad_message_is_refused_with_what_was_wanted(message: Any, wanted: str) -> None:
    with pytest.raises(BadMessage, match=wanted) as refusal:
        DIALECT.decode(message if isinstance(message, str) else json.dumps(message))
    assert refusal.value.error.code in ("INVALID_MESSAGE", "UNKNOWN_TYPE")
    assert len(said(DIALECT.error(refusal.value.error))["payload"]["message"]) < 300


@pytest.mark.parametrize("id", ["q", "", 3, -1.5])
def test_a_refusal_is_addressed_to_the_id_as_far_as_it_can_be_read(id: Any) -> None:
    with pytest.raises(BadMessage) as refusal:
        DIALECT.decode(json.dumps({"type": "nothing", "id": id}))
    assert refusal.value.id == id


@pytest.mark.parametrize(
    "extra", [{"timestamp": "yesterday"}, {"id": None}, {"more": [1]}, {"timestamp": None}]
)
def test_what_the_contract_does_not_ask_for_does_no_harm(extra: dict[str, Any]) -> None:
    message = {"type": "subscribe_task", "payload": {"videoId": VIDEO, "since": 1}, **extra}
    assert DIALECT.decode(json.dumps(message)) == Request(Subscribe((VIDEO,)))


def test_an_id_asked_for_twice_is_looked_up_once() -> None:
    message = {"type": "requestMultipleTaskStatus", "payload": {"videoIds": ["b", "a", "b", "a"]}}
    assert DIALECT.decode(json.dumps(message)).command == Refresh(("b", "a"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
nearly = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(TYPES) | json_values,
        "id": json_values,
        "timestamp": json_values,
        "payload": st.dictionaries(
            st.sampled_from(["token", "batch", "videoId", "videoIds"]),
            json_values | st.just(VIDEO),
            max_size=3,
        )
        | json_values,
    },
)


@settings(max_examples=400)
@given(nearly.map(json.dumps) | json_values.map(json.dumps) | st.text(max_size=80))
def test_whatever_is_sent_is_decoded_or_refused(text: str) -> None:
    try:
        answer = DIALECT.pong(DIALECT.decode(text))
    except BadMessage as refusal:
        answer = DIALECT.error(refusal.error, refusal.id)
    assert said(answer)["type"] in ("pong", "error")


@given(st.sampled_from([each.wire for each in GOLDEN if each.sender == "client"]), st.data())
def test_a_damaged_message_is_decoded_or_refused(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    damaged = text[:place] + data.draw(st.text(max_size=3)) + text[place + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(BadMessage):
        DIALECT.decode(damaged)


def test_the_registry_makes_dialects_under_their_names() -> None:
    for name, make in DIALECTS.items():
        assert make(lambda: 1, str).name == name
