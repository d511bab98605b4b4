"""Follows tasks live to their end over the *tasks* contract (docs/contracts/tasks.md), across broken connections.

Whatever happens to the connection, the iteration ends in one of two ways: every task has reached its end, or an
exception says why that cannot be seen.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from taskwire import __version__
from taskwire.client.address import base_url, is_local, websocket_url
from taskwire.client.backoff import Backoff
from taskwire.client.errors import BadAnswer, LoginRefused, Refused, Unreachable
from taskwire.client.rest import TokenSource, current_token
from taskwire.core.errors import CLOSE_CODES, NORMAL, POLICY, REVOKED
from taskwire.core.tasks import CANCELLED, CANCELLED_ERROR, COMPLETED, FAILED, TERMINAL, Number, TaskStatus

_log: Final = logging.getLogger(__name__)
_MAX_MESSAGE: Final = 16 * 1024 * 1024
_FINAL_CODES: Final = {kind.code: kind for kind in CLOSE_CODES if not kind.reconnect and kind is not NORMAL}


@dataclass(frozen=True, slots=True)
class Update:
    """One message about a task. ``progress`` is 0–100, ``eta`` seconds; ``result``, ``metrics``, ``error`` as sent."""

    task_id: str
    status: TaskStatus
    progress: Number
    revision: int
    attempt: int = 1
    current_step: int = 0
    total_steps: int = 0
    message: str = ""
    eta: Number | None = None
    result: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether this is the final message."""
        return self.status in TERMINAL


class Link(StrEnum):
    """How the connection stands; a thing apart from how the tasks stand."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"  # it broke; the next try comes in a moment


LinkListener = Callable[[Link, str, float], None]
"""Called with the link's state, what went wrong (or ""), and the seconds until the next try."""


class Follower:
    """An asynchronous iterator over the updates of some tasks, from their present state to their end.

    Reconnects with full jitter, or when the server said to, and subscribes anew; what was seen before is not given
    again. ``token`` is asked for at every login. ``patience`` is how many seconds it may be without a connection
    (None: for ever). Raises ``LoginRefused``, ``Refused`` (e.g. ``TASK_NOT_FOUND``), ``Unreachable`` when the patience
    is over, and ``BadAnswer``. Subscribes all at once: a hundred tasks are well below what a server takes in one go.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource,
        task_ids: Iterable[str],
        *,
        on_link: LinkListener = lambda link, reason, wait: None,
        patience: float | None = None,
        answer_timeout: float = 10,
        backoff: Backoff | None = None,
    ) -> None:
        self._base = base_url(url)
        self._token = token
        self._open = dict.fromkeys(task_ids)
        self._revisions: dict[str, int] = {}
        self._unanswered: set[str] = set()  # ids of our messages that the server has still to answer
        self._on_link = on_link
        self._patience = patience
        self._answer_timeout = answer_timeout
        self._backoff = backoff or Backoff()
        self._come_back: float | None = None  # seconds, said by a server that goes down
        self._logged_in = False

    async def __aiter__(self) -> AsyncIterator[Update]:
        clock = asyncio.get_running_loop().time
        gone_since = clock()
        while self._open:
            self._on_link(Link.CONNECTING, "", 0)
            try:
                async with self._connect() as socket:
                    await self._log_in(socket)
                    for task_id in self._open:
                        await self._send(
                            socket, f"subscribe:{task_id}", "subscribe_task", {"videoId": task_id}
                        )
                    while self._open:
                        async with asyncio.timeout(self._answer_timeout if self._unanswered else None):
                            message = await socket.recv()
                        update = await self._receive(socket, message)
                        if update is not None:
                            yield update
                return
            except (
                Unreachable,
                ConnectionClosed,
                InvalidHandshake,
                TimeoutError,
                OSError,
                EOFError,
            ) as error:
                reason = self._why(error)
            if self._logged_in:
                self._logged_in, gone_since = False, clock()
            await self._wait(reason, clock() - gone_since)

    def _connect(self) -> connect:
        return connect(
            websocket_url(self._base),
            open_timeout=self._answer_timeout,
            max_size=_MAX_MESSAGE,
            user_agent_header=f"taskwire-client/{__version__}",
            proxy=None if is_local(self._base) else True,
            logger=_log,
        )

    async def _log_in(self, socket: ClientConnection) -> None:
        await self._send(socket, "auth", "auth", {"token": await current_token(self._token)})

    async def _send(self, socket: ClientConnection, id: str, type: str, payload: Mapping[str, Any]) -> None:
        self._unanswered.add(id)
        await socket.send(json.dumps({"id": id, "type": type, "payload": payload}))

    async def _receive(self, socket: ClientConnection, message: str | bytes) -> Update | None:
        """Take a message in; gives what it tells of a task, if that is news."""
        try:
            found = json.loads(message)
            type, payload = found["type"], found["payload"]
            self._unanswered.discard(found.get("id"))
            if type in _READERS:
                return self._news(_READERS[type](payload))
            if type == "error":
                await self._refused(socket, payload)
            elif type == "authSuccess":
                self._logged_in = True
                self._on_link(Link.CONNECTED, "", 0)
            elif type == "subscribeSuccess":
                self._backoff.reset()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadAnswer(
                f"{self._base} does not speak the tasks contract: {str(message)[:100]!r}"
            ) from error
        return None

    def _news(self, update: Update) -> Update | None:
        if update.task_id not in self._open or update.revision <= self._revisions.get(update.task_id, 0):
            return None
        self._revisions[update.task_id] = update.revision
        if update.finished:
            del self._open[update.task_id]
        return update

    async def _refused(self, socket: ClientConnection, error: Mapping[str, Any]) -> None:
        """An ``error`` message: a fresh login if that helps, a new connection if time helps, else an exception."""
        code, text, details = str(error["code"]), str(error["message"]), error.get("details") or {}
        if code == "TOKEN_EXPIRED" and not isinstance(self._token, str):
            await self._log_in(socket)
        elif code == "SERVER_SHUTDOWN":
            self._come_back = float(details.get("retryAfter") or 0)
        elif code in ("UNAUTHORIZED", "TOKEN_EXPIRED"):
            raise LoginRefused(code, text, details=details)
        elif error.get("retryable"):
            raise _Again(text, details.get("retryAfter"))
        else:
            raise Refused(code, text, details=details)

    def _why(self, error: Exception) -> str:
        """Why there is no connection, for people; raises if coming back is of no use."""
        if isinstance(error, ConnectionClosed):
            return self._why_closed(error)
        if isinstance(error, InvalidStatus):
            return self._why_refused(error)
        if isinstance(error, _Again):
            self._come_back = error.after
        if isinstance(error, TimeoutError):
            return "no answer in time"
        if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
            return "connection refused"  # asyncio's own texts name every address that was tried
        if isinstance(error, OSError) and error.strerror:
            return error.strerror.lower()
        return str(error).rstrip(".") or type(error).__name__

    def _why_closed(self, error: ConnectionClosed) -> str:
        code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else (1006, "")
        kind = _FINAL_CODES.get(code)
        if kind is not None:
            refusal = LoginRefused if kind in (POLICY, REVOKED) else Refused
            raise refusal(
                f"CLOSED_{code}", f"The server closed the connection: {reason or kind.reason}."
            ) from error
        return f"the connection broke ({code}{': ' + reason if reason else ''})"

    def _why_refused(self, error: InvalidStatus) -> str:
        status = error.response.status_code
        if status not in (408, 425, 429) and status < 500:
            raise BadAnswer(
                f"{self._base} refused the WebSocket connection with HTTP {status}; is it a Taskwire server?"
            ) from error
        after = error.response.headers.get("Retry-After", "")
        self._come_back = float(after) if after.isdecimal() else None
        return f"HTTP {status}"

    async def _wait(self, reason: str, outage: float) -> None:
        self._unanswered.clear()
        if self._patience is not None and outage >= self._patience:
            raise Unreachable(f"{self._base} has been out of reach for {outage:.0f} s: {reason}.")
        delay = self._backoff.next() if self._come_back is None else self._come_back
        self._come_back = None
        if self._patience is not None:
            delay = min(delay, max(0.0, self._patience - outage))
        self._on_link(Link.WAITING, reason, delay)
        await asyncio.sleep(delay)


class _Again(Unreachable):
    """The server cannot just now; ``after`` is when it can, in seconds, if it said so."""

    def __init__(self, reason: str, after: float | None) -> None:
        super().__init__(reason.rstrip("."))
        self.after = after


def _progress(payload: Mapping[str, Any]) -> Update:
    return Update(
        task_id=payload["videoId"],
        status=TaskStatus(payload["status"]),
        progress=payload["progress"],
        revision=payload["revision"],
        attempt=payload.get("attempt", 1),
        current_step=payload["currentStep"],
        total_steps=payload["totalSteps"],
        message=payload["message"],
        eta=payload["estimatedTimeRemaining"],
    )


def _completed(payload: Mapping[str, Any]) -> Update:
    return Update(
        task_id=payload["videoId"],
        status=COMPLETED,
        progress=payload["progress"],
        revision=payload["revision"],
        attempt=payload.get("attempt", 1),
        result=payload["result"],
        metrics=payload["metrics"],
    )


def _failed(payload: Mapping[str, Any]) -> Update:
    error = payload["error"]
    return Update(
        task_id=payload["videoId"],
        status=CANCELLED if error["code"] == CANCELLED_ERROR.code else FAILED,
        progress=payload.get("progress", 0),
        revision=payload["revision"],
        attempt=payload.get("attempt", 1),
        message=error["message"],
        error=error,
    )


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Update]]] = {
    "taskProgress": _progress,
    "taskCompleted": _completed,
    "taskFailed": _failed,
}
