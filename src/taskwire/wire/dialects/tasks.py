"""The *tasks* contract (docs/contracts/tasks.md): JSON messages ``{type, id?, timestamp?, payload}`` as text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from taskwire.core.codec import error_to_json
from taskwire.core.errors import InvalidRequest, TaskwireError
from taskwire.core.events import Event
from taskwire.core.principals import Principal
from taskwire.core.tasks import COMPLETED, TERMINAL, Task, TaskResult, metrics
from taskwire.wire.commands import (
    Authenticate,
    BadMessage,
    Command,
    Payload,
    Ping,
    Refresh,
    Request,
    Subscribe,
    Unsubscribe,
)
from taskwire.wire.dialect import EventView

Clock = Callable[[], int]
Absolute = Callable[[str], str]

TYPES: Final = (
    "auth",
    "subscribe_task",
    "unsubscribe_task",
    "requestTaskStatus",
    "requestMultipleTaskStatus",
    "ping",
)
_MAX_TOKEN: Final = 16_384
_MAX_ID: Final = 256  # characters of any id


def _message(type: str, payload: Mapping[str, Any], now: int, id: Any = None) -> bytes:
    message: dict[str, Any] = {"type": type, "timestamp": now, "payload": payload}
    if id is not None:
        message["id"] = id
    return orjson.dumps(message)


class _Encoder:
    """The payloads of the server's pushes."""

    def __init__(self, clock: Clock, absolute: Absolute) -> None:
        self.clock = clock
        self.absolute = absolute

    def followed(self, task: Task) -> tuple[str, dict[str, Any]]:
        """Type and payload for a subscriber of the task."""
        state = task.state
        if state.status is COMPLETED:
            return "taskCompleted", self._completed(task)
        if state.status in TERMINAL:
            payload = {
                "videoId": task.spec.id,
                "status": "failed",
                "error": error_to_json(state.error),
                "progress": state.progress,
                "revision": state.revision,
                "attempt": state.attempt,
            }
            return "taskFailed", payload
        return "taskProgress", {
            "videoId": task.spec.id,
            "status": state.status,
            "progress": state.progress,
            "currentStep": state.current_step or 0,
            "totalSteps": state.total_steps or 0,
            "message": state.message,
            "estimatedTimeRemaining": state.eta,
            "revision": state.revision,
            "attempt": state.attempt,
        }

    def _completed(self, task: Task) -> dict[str, Any]:
        state = task.state
        result = state.result or TaskResult()
        times = metrics(state, state.updated_at)
        return {
            "videoId": task.spec.id,
            "status": "completed",
            "progress": 100,
            "result": {
                "videoUrl": self.absolute(result.video_url),
                "thumbnailUrl": self.absolute(result.thumbnail_url),
                "duration": result.duration,
                "fileSize": result.file_size,
                "resolution": result.resolution,
                **({"extra": result.extra} if result.extra else {}),
            },
            "metrics": {
                "totalTime": times.total_time,
                "queueTime": times.queue_time,
                "processTime": times.process_time,
            },
            "revision": state.revision,
            "attempt": state.attempt,
        }

    def updated(self, task: Task) -> dict[str, Any]:
        """Payload of ``taskUpdated``."""
        state = task.state
        result = state.result
        return {
            "videoId": task.spec.id,
            "status": state.status,
            "progress": state.progress,
            "videoUrl": self.absolute(result.video_url) if result is not None and result.video_url else None,
            "error": error_to_json(state.error),
            "title": task.spec.title,
            "revision": state.revision,
            "attempt": state.attempt,
        }


class _TaskView(_Encoder):
    def encode(self, event: Event) -> bytes | None:
        type, payload = self.followed(event.entity)
        return _message(type, payload, self.clock())


class _RoomView(_Encoder):
    def encode(self, event: Event) -> bytes | None:
        return _message("taskUpdated", self.updated(event.entity), self.clock())


class _BatchView(_Encoder):
    def encode(self, event: Event) -> bytes | None:
        return orjson.dumps(self.updated(event.entity))


class TasksDialect:
    """Implements ``wire.dialect.Dialect``."""

    name = "tasks"

    def __init__(self, clock: Clock, absolute: Absolute) -> None:
        self._clock = clock
        self._encoder = _Encoder(clock, absolute)
        self.task_view: EventView = _TaskView(clock, absolute)
        self.room_view: EventView = _RoomView(clock, absolute)
        self.batch_view: EventView = _BatchView(clock, absolute)

    # Client to server

    def decode(self, text: str) -> Request:
        try:
            message = orjson.loads(text)
        except ValueError:
            raise BadMessage(_bad("wanted a JSON object {type, payload}, but this is not JSON")) from None
        if not isinstance(message, dict):
            raise BadMessage(_bad("wanted a JSON object {type, payload}"))
        id = message.get("id")
        # The contract has text here; a number is a likely slip and harmless, so it is echoed as well.
        number = isinstance(id, int | float) and not isinstance(id, bool)
        if id is not None and not number and not (isinstance(id, str) and len(id) <= _MAX_ID):
            raise BadMessage(_bad(f"`id`: wanted text of at most {_MAX_ID} characters"))
        try:
            return Request(_command(message), id)
        except TaskwireError as error:
            raise BadMessage(error, id) from None

    # Server to client

    def authenticated(self, request: Request, principal: Principal, session_id: str) -> bytes:
        payload = {
            "userId": principal.user_id,
            "username": principal.username,
            "sessionId": session_id,
            "expiresAt": principal.expires_at,
        }
        return _message("authSuccess", payload, self._clock(), request.id)

    def subscribed(self, request: Request, task_id: str) -> bytes:
        return _message(
            "subscribeSuccess", {"videoId": task_id, "subscribed": True}, self._clock(), request.id
        )

    def unsubscribed(self, request: Request, task_id: str) -> bytes:
        return _message(
            "unsubscribeSuccess", {"videoId": task_id, "subscribed": False}, self._clock(), request.id
        )

    def state(self, request: Request, event: Event, stale: str | None) -> bytes:
        payload = self._encoder.updated(event.entity)
        if stale is not None:
            payload |= {"stale": True, "staleReason": stale}
        return _message("taskUpdated", payload, self._clock(), request.id)

    def pong(self, request: Request) -> bytes:
        return _message("pong", {}, self._clock(), request.id)

    def error(self, error: TaskwireError, id: Any = None, task_id: str | None = None) -> bytes:
        details = dict(error.details or {})
        if task_id is not None:
            details["videoId"] = task_id
        if error.retry_after is not None:
            details["retryAfter"] = error.retry_after
        payload: dict[str, Any] = {"code": error.code, "message": error.message, "retryable": error.retryable}
        if details:
            payload["details"] = details
        return _message("error", payload, self._clock(), id)

    def heartbeat(self, clients: int, uptime: float) -> bytes:
        return _message("heartbeat", {"connectedClients": clients, "uptime": round(uptime, 3)}, self._clock())

    def batch(self, pieces: Sequence[bytes]) -> bytes:
        if len(pieces) == 1:
            head = b'{"type":"taskUpdated","timestamp":%d,"payload":'
            return head % self._clock() + pieces[0] + b"}"
        head = b'{"type":"tasksUpdated","timestamp":%d,"payload":{"updates":['
        return head % self._clock() + b",".join(pieces) + b"]}}"


def _bad(message: str, code: str = "INVALID_MESSAGE") -> InvalidRequest:
    return InvalidRequest(message, code=code)


def _command(message: Mapping[str, Any]) -> Command:
    """The command of a message; raises InvalidRequest saying what was wanted."""
    type = message.get("type")
    if not isinstance(type, str):
        raise _bad("`type`: wanted text, one of " + ", ".join(TYPES))
    if type == "ping":
        return Ping()
    reader = _READERS.get(type)
    if reader is None:
        raise _bad(f"`type`: wanted one of {', '.join(TYPES)}, but got {type[:40]!r}", "UNKNOWN_TYPE")
    payload = message.get("payload")
    if not isinstance(payload, dict):
        raise _bad(f"`payload`: wanted an object with what {type} needs")
    return reader(payload)


def _auth(payload: Payload) -> Command:
    token, batch = payload.get("token"), payload.get("batch", False)
    if not isinstance(token, str) or not token or len(token) > _MAX_TOKEN:
        raise _bad("`payload.token`: wanted a token as text")
    if not isinstance(batch, bool):
        raise _bad("`payload.batch`: wanted true or false")
    return Authenticate(token, batch)


def _may_be_id(value: object) -> bool:
    """Text that no task can have as its id is an unknown id like any other, and does not spoil those beside it."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID


def _id(payload: Payload) -> tuple[str, ...]:
    id = payload.get("videoId")
    if not _may_be_id(id):
        raise _bad("`payload.videoId`: wanted the id of a task as text")
    return (str(id),)


def _ids(payload: Payload) -> tuple[str, ...]:
    ids = payload.get("videoIds")
    if not isinstance(ids, list) or not ids or not all(_may_be_id(id) for id in ids):
        raise _bad("`payload.videoIds`: wanted a list of ids of tasks, at least one")
    return tuple(dict.fromkeys(ids))


_READERS: Final[Mapping[str, Callable[[Payload], Command]]] = {
    "auth": _auth,
    "subscribe_task": lambda payload: Subscribe(_id(payload)),
    "unsubscribe_task": lambda payload: Unsubscribe(_id(payload)),
    "requestTaskStatus": lambda payload: Refresh(_id(payload)),
    "requestMultipleTaskStatus": lambda payload: Refresh(_ids(payload)),
}
